// The encoding's own encode: of scalar types nearest even, of block types the reference rounding.
#include "method/input.h"
#include "method/rtn/quantizers.h"

namespace nibble::method::rtn {

namespace {

class Reference final : public Quantizer {
 public:
  explicit Reference(const Job& job) : job_(job) {}
  void quantize_rows(const float* weights, std::int64_t row_begin, std::int64_t n_rows,
                     const RowsOut& out) const override {
    require_representable(job_, weights, row_begin, n_rows);
    job_.target->encode(weights, out.parts[0], n_rows * job_.shape.cols());
  }

 private:
  Job job_;
};

}  // namespace

std::unique_ptr<Quantizer> make_reference(const Job& job) { return std::make_unique<Reference>(job); }

}  // namespace nibble::method::rtn
