// Picks the operations for an instruction set.
#pragma once

#include "base/cpu.h"
#include "ops/op_table.h"

namespace nibble::ops {

const OpTable& choose_ops(Isa isa);

}  // namespace nibble::ops
