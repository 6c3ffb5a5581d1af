// Conversion to another scalar type: nearest even, whatever the rounding asked for.
#include "method/input.h"
#include "method/rtn/quantizers.h"

namespace nibble::method::rtn {

namespace {

class Plain final : public Quantizer {
 public:
  explicit Plain(const Job& job) : job_(job) {}
  void quantize_rows(const float* weights, std::int64_t row_begin, std::int64_t n_rows,
                     const RowsOut& out) const override {
    require_representable(job_, weights, row_begin, n_rows);
    job_.target->encode(weights, out.parts[0], n_rows * job_.shape.cols());
  }

 private:
  Job job_;
};

}  // namespace

std::unique_ptr<Quantizer> make_plain(const Job& job) { return std::make_unique<Plain>(job); }

}  // namespace nibble::method::rtn
