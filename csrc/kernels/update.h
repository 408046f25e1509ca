/* Steps of optimizers, in place: one pass over a weight, its gradient and its state, in Keras's order of operations.
 * The comment of each says what its state and its coefficients are. */

/* A NaN stays one. */
BNN_INLINE float update_limited(float value, float limit) {
  value = value < -limit ? -limit : value;
  return value > limit ? limit : value;
}

/* lr */
BNN_INLINE void update_sgd(const bnn_update *u, int64_t begin, int64_t end) {
  float *restrict value = u->value, lr = u->coefficient[0], limit = u->limit;
  const float *restrict grad = u->grad;
  for (int64_t i = begin; i < end; i++) value[i] = update_limited(value[i] - grad[i] * lr, limit);
}

/* The accumulator; lr, momentum. */
BNN_INLINE void update_momentum(int nesterov, const bnn_update *u, int64_t begin, int64_t end) {
  float *restrict value = u->value, *restrict accumulator = u->state[0];
  const float *restrict grad = u->grad;
  float lr = u->coefficient[0], momentum = u->coefficient[1], limit = u->limit;
  for (int64_t i = begin; i < end; i++) {
    float step = grad[i] * -lr, sum = accumulator[i] * momentum + step;
    accumulator[i] = sum;
    value[i] = update_limited(value[i] + (nesterov ? step + sum * momentum : sum), limit);
  }
}

/* m, v and for AMSGrad the largest v so far; alpha, one minus each decay rate, epsilon. */
BNN_INLINE void update_adam(int amsgrad, const bnn_update *u, int64_t begin, int64_t end) {
  float *restrict value = u->value, *restrict m = u->state[0], *restrict v = u->state[1];
  float *restrict v_hat = u->state[2];
  const float *restrict grad = u->grad;
  float limit = u->limit;
  float alpha = u->coefficient[0], rest_1 = u->coefficient[1], rest_2 = u->coefficient[2], epsilon = u->coefficient[3];
  for (int64_t i = begin; i < end; i++) {
    float first = m[i] + (grad[i] - m[i]) * rest_1, second = v[i] + (grad[i] * grad[i] - v[i]) * rest_2;
    m[i] = first;
    v[i] = second;
    if (amsgrad) {
      float largest = v_hat[i];
      largest = second > largest ? second : largest;
      second = second == second ? largest : second;
      v_hat[i] = second;
    }
    value[i] = update_limited(value[i] - (first * alpha) / (__builtin_sqrtf(second) + epsilon), limit);
  }
}

/* m; gamma, threshold. */
BNN_INLINE void update_bop(const bnn_update *u, int64_t begin, int64_t end) {
  float *restrict value = u->value, *restrict m = u->state[0];
  const float *restrict grad = u->grad;
  float gamma = u->coefficient[0], threshold = u->coefficient[1], limit = u->limit;
  for (int64_t i = begin; i < end; i++) {
    float mean = m[i] + gamma * (grad[i] - m[i]), excess = value[i] * mean - threshold;
    float side = (float)((excess > 0) - (excess < 0)), turned = -side * value[i];
    m[i] = mean;
    value[i] = update_limited(excess == excess ? ste_sign_f32(turned) : excess, limit);
  }
}

static void update(const void *what, int64_t begin, int64_t end) {
  const bnn_update *u = what;
  switch (u->rule) {
    case BNN_SGD:
      update_sgd(u, begin, end);
      break;
    case BNN_MOMENTUM:
      update_momentum(0, u, begin, end);
      break;
    case BNN_NESTEROV:
      update_momentum(1, u, begin, end);
      break;
    case BNN_ADAM:
      update_adam(0, u, begin, end);
      break;
    case BNN_AMSGRAD:
      update_adam(1, u, begin, end);
      break;
    default:
      update_bop(u, begin, end);
  }
}
