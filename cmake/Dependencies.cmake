# Third-party libraries, each behind one target. docs/architecture.md says why each is here and which folder sees it.
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)

find_package(CLI11 REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(pcre2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(simdjson REQUIRED IMPORTED_TARGET simdjson)
pkg_check_modules(utf8proc REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(xxhash REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(openblas REQUIRED IMPORTED_TARGET openblas)
if(NIBBLE_TESTS)
  find_package(GTest REQUIRED)
  find_package(benchmark QUIET)  # speed programs; left out where the library is absent
endif()
