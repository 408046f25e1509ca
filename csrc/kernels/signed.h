/* float x bits -> float: binary-weight layers and both gradients of a binary layer. */

#include "signed_tile.h"

#include "signed_sparse.h"

#include "signed_rows.h"

#include "signed_reduce.h"

#ifdef BNN_TILES
#include "tiles_rows.h"
#endif
