# nibble_floor(): one folder of src/ = one library + one test program, linked as cmake/floors.txt allows.
file(STRINGS "${PROJECT_SOURCE_DIR}/cmake/floors.txt" NIBBLE_FLOOR_LINES REGEX "^[a-z]")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/cmake/floors.txt")

foreach(line IN LISTS NIBBLE_FLOOR_LINES)
  string(REPLACE "::" "@@" line "${line}")
  string(REPLACE ":" ";" fields "${line}")
  list(LENGTH fields n_fields)
  if(NOT n_fields EQUAL 4)
    message(FATAL_ERROR "cmake/floors.txt: expected 4 fields in '${line}'")
  endif()
  list(GET fields 0 floor)
  string(STRIP "${floor}" floor)
  list(GET fields 1 includes)
  list(GET fields 3 targets)
  string(REPLACE "@@" "::" targets "${targets}")
  separate_arguments(NIBBLE_INCLUDES_${floor} UNIX_COMMAND "${includes}")
  separate_arguments(NIBBLE_TARGETS_${floor} UNIX_COMMAND "${targets}")
endforeach()

# nibble_floor(<folder>): library nibble_<folder> from every .cpp below it but *_test.cpp and *_bench.cpp; test program
# nibble_<folder>_test from the *_test.cpp. Tests whose suite name contains "Slow" run only in the whole suite.
function(nibble_floor floor)
  set(dir "${CMAKE_CURRENT_SOURCE_DIR}")
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${dir}/*.cpp")
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_(test|bench)\\.cpp$")
  list(FILTER sources EXCLUDE REGEX "/main\\.cpp$")
  list(FILTER tests INCLUDE REGEX "_test\\.cpp$")
  nibble_set_isa_flags(${sources})

  list(TRANSFORM NIBBLE_INCLUDES_${floor} PREPEND nibble_ OUTPUT_VARIABLE lower)
  if(sources)
    add_library(nibble_${floor} STATIC ${sources})
    set(scope PUBLIC)
    set(private PRIVATE)
  else()
    add_library(nibble_${floor} INTERFACE)
    set(scope INTERFACE)
    set(private INTERFACE)
  endif()
  target_include_directories(nibble_${floor} ${scope} "${PROJECT_SOURCE_DIR}/src" "${PROJECT_SOURCE_DIR}/include")
  target_link_libraries(nibble_${floor} ${scope} ${lower} ${NIBBLE_TARGETS_${floor}} ${private} nibble_options)

  if(NIBBLE_TESTS AND tests)
    add_executable(nibble_${floor}_test ${tests})
    target_link_libraries(nibble_${floor}_test PRIVATE nibble_${floor} nibble_options GTest::gtest_main GTest::gmock)
    if(TARGET nibble_testing AND NOT floor STREQUAL "testing")
      target_link_libraries(nibble_${floor}_test PRIVATE nibble_testing)
    endif()
    target_compile_definitions(nibble_${floor}_test PRIVATE "NIBBLE_SOURCE_DIR=\"${PROJECT_SOURCE_DIR}\"")
    add_test(NAME ${floor} COMMAND nibble_${floor}_test --gtest_filter=-*Slow*)
    set_tests_properties(${floor} PROPERTIES LABELS short TIMEOUT 300)
    set(slow "")
    foreach(test IN LISTS tests)
      file(STRINGS "${test}" hits REGEX "^(TEST|TEST_F|TEST_P|INSTANTIATE_TEST_SUITE_P)\\([A-Za-z0-9_]*Slow")
      list(APPEND slow ${hits})
    endforeach()
    if(slow)
      add_test(NAME ${floor}-slow COMMAND nibble_${floor}_test --gtest_filter=*Slow*)
      set_tests_properties(${floor}-slow PROPERTIES LABELS slow TIMEOUT 1200)
    endif()
  endif()
endfunction()

# nibble_table(<floor> <type> WORD...): generates the table of a plug-in floor. Each word is a folder whose code defines
# `const <type>& nibble::<floor>::<word>::entry()`; the table is `nibble::<floor>::all_entries()`.
function(nibble_table floor type header)
  set(declarations "")
  set(entries "")
  foreach(word IN LISTS ARGN)
    string(APPEND declarations "namespace ${word} { const ${type}& entry(); }\n")
    string(APPEND entries "      &${word}::entry(),\n")
  endforeach()
  set(out "${CMAKE_CURRENT_BINARY_DIR}/${floor}_table.cpp")
  file(CONFIGURE OUTPUT "${out}" @ONLY CONTENT
"// Generated from the word list in src/${floor}/CMakeLists.txt.
#include \"${header}\"

namespace nibble::${floor} {
${declarations}
std::span<const ${type}* const> all_entries() {
  static const std::vector<const ${type}*> entries = {
${entries}  };
  return entries;
}
}  // namespace nibble::${floor}
")
  target_sources(nibble_${floor} PRIVATE "${out}")
endfunction()

# nibble_family_table(<floor> <type> "header.h" WORD...): the same for words that stand for families: each folder defines
# `std::span<const <type>> nibble::<floor>::<word>::entries()`, one entry or several, living as long as the program.
function(nibble_family_table floor type header)
  set(declarations "")
  set(appends "")
  foreach(word IN LISTS ARGN)
    string(APPEND declarations "namespace ${word} { std::span<const ${type}> entries(); }\n")
    string(APPEND appends "    for (const ${type}& entry : ${word}::entries()) table.push_back(&entry);\n")
  endforeach()
  set(out "${CMAKE_CURRENT_BINARY_DIR}/${floor}_table.cpp")
  file(CONFIGURE OUTPUT "${out}" @ONLY CONTENT
"// Generated from the word list in src/${floor}/CMakeLists.txt.
#include \"${header}\"

namespace nibble::${floor} {
${declarations}
std::span<const ${type}* const> all_entries() {
  static const std::vector<const ${type}*> entries = [] {
    std::vector<const ${type}*> table;
${appends}    return table;
  }();
  return entries;
}
}  // namespace nibble::${floor}
")
  target_sources(nibble_${floor} PRIVATE "${out}")
endfunction()
