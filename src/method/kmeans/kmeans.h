// The quantizer behind `kmeans`, and without statistics behind `rtn`, on the kmeans encodings.
#pragma once

#include <memory>

#include "method/quantizer.h"

namespace nibble::method::kmeans {

std::unique_ptr<Quantizer> make_kmeans(const Job& job);

}  // namespace nibble::method::kmeans
