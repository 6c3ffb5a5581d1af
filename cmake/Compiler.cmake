# Compiler settings of every target, and the flags of files written for one instruction set.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

find_program(NIBBLE_CCACHE ccache)
if(NIBBLE_CCACHE)
  # Paths relative to the source tree, so that two checkouts share their objects.
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CMAKE_COMMAND}" -E env
      "CCACHE_BASEDIR=${PROJECT_SOURCE_DIR}" CCACHE_NOHASHDIR=1 "${NIBBLE_CCACHE}")
endif()

add_library(nibble_options INTERFACE)
target_compile_options(nibble_options INTERFACE
  -Wall -Wextra -Wshadow -Wno-psabi $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict> -ffp-contract=off -fno-math-errno)
if(NIBBLE_WERROR)
  target_compile_options(nibble_options INTERFACE -Werror)
endif()
if(NIBBLE_SANITIZE)
  target_compile_options(nibble_options INTERFACE -fsanitize=${NIBBLE_SANITIZE} -fno-omit-frame-pointer)
  target_link_options(nibble_options INTERFACE -fsanitize=${NIBBLE_SANITIZE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # GCC 12 with both sanitizers drops sums of vector loops; not so without this pass, nor with one sanitizer or clang.
    # It also takes moved-from variants for uninitialised there.
    target_compile_options(nibble_options INTERFACE -fno-thread-jumps -Wno-maybe-uninitialized)
  endif()
endif()

# `x_avx2.cpp`, `x_avx512.cpp` and `x_amx.cpp` (or `avx2.cpp`, ... in a kernel's folder) are compiled for that
# instruction set and are entered only after base/cpu.h has found it; everything else runs on any x86-64.
set(NIBBLE_FLAGS_avx2 -mavx2 -mfma -mf16c -mbmi2)
set(NIBBLE_FLAGS_avx512 -mavx2 -mfma -mf16c -mbmi2 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512cd
    -mavx512vnni -mavx512vbmi -mprefer-vector-width=512
    -Wno-maybe-uninitialized -Wno-uninitialized)  # GCC 12 warns about its own intrinsics (bug 105593)
set(NIBBLE_FLAGS_amx ${NIBBLE_FLAGS_avx512} -mavx512bf16 -mamx-tile -mamx-bf16 -mamx-int8)

function(nibble_set_isa_flags)
  foreach(source IN LISTS ARGN)
    foreach(isa avx2 avx512 amx)
      if(source MATCHES "(^|[/_])${isa}\\.cpp$")
        set_source_files_properties("${source}" PROPERTIES COMPILE_OPTIONS "${NIBBLE_FLAGS_${isa}}")
      endif()
    endforeach()
  endforeach()
endfunction()
