// Which of its kernels the BLAS uses.
#pragma once

namespace nibble::linalg {

// The library chooses kernels once, when it is loaded, by a list of processors; one that is younger than the list gets
// kernels of 2004. The name of a core that this machine's instruction set serves several times better, to be put
// into OPENBLAS_CORETYPE before the program is started anew; null where the choice is sound, or the user's own.
const char* better_core();

}  // namespace nibble::linalg
