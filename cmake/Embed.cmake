# nibble_embed(<target> <function> <file>...): builds data files into the program as
# `std::span<const EmbeddedFile> nibble::pipeline::<function>()`, in the order given; the generated file follows them.
function(nibble_embed target function)
  set(entries "")
  foreach(file IN LISTS ARGN)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${file}")
    file(READ "${file}" text)
    cmake_path(GET file STEM LAST_ONLY name)
    string(APPEND entries "    {\"${name}\", R\"nibble(${text})nibble\"},\n")
  endforeach()
  set(out "${CMAKE_CURRENT_BINARY_DIR}/${function}.cpp")
  file(CONFIGURE OUTPUT "${out}" @ONLY CONTENT
"// Generated from data files; see the nibble_embed() call.
#include \"pipeline/embedded.h\"

namespace nibble::pipeline {

std::span<const EmbeddedFile> ${function}() {
  static constexpr EmbeddedFile kFiles[] = {
@entries@  };
  return kFiles;
}

}  // namespace nibble::pipeline
")
  target_sources(${target} PRIVATE "${out}")
endfunction()
