#include "box_store.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace fractopt {

namespace {

constexpr std::int64_t exact = std::int64_t{1} << 53;  // integers up to here are doubles

// numerator / denominator, correctly rounded, for 2^53 < numerator < denominator < 2^54: the quotient is
// a multiple of 2^-53 in (1/2, 1].
double wide_ratio(std::int64_t numerator, std::int64_t denominator) {
    __extension__ using Wide = unsigned __int128;
    const auto scaled = static_cast<Wide>(numerator) << 53;
    auto quotient = static_cast<std::int64_t>(scaled / static_cast<Wide>(denominator));
    const auto rest = static_cast<std::int64_t>(scaled % static_cast<Wide>(denominator));
    if (2 * rest > denominator || (2 * rest == denominator && quotient % 2 == 1)) {
        ++quotient;  // to nearest, ties to even
    }
    return static_cast<double>(quotient) / static_cast<double>(exact);
}

std::size_t checked(std::int64_t dimension) {
    if (dimension < 1) {
        throw std::invalid_argument("a tree needs a dimension of at least 1, got " + std::to_string(dimension));
    }
    return static_cast<std::size_t>(dimension);
}

}  // namespace

BoxStore::BoxStore(std::int64_t dimension, std::int64_t base)
    : d_(checked(dimension)), base_(base), index_(d_), exponent_(d_) {
    if (base < 2 || base > 1024) {
        throw std::invalid_argument("a box is split into 2 to 1024 children, got " + std::to_string(base));
    }
    for (std::int64_t power = 1; power < exact; power *= base) {
        powers_.push_back(power);
    }
    while (powers_[continuous_limit_] < Axes::finest) {
        ++continuous_limit_;  // ends: for every K >= 2 some power lies in [2^43, 2^53)
    }
}

std::size_t BoxStore::add_root() {
    std::fill_n(index_.add(), d_, std::int64_t{0});
    std::fill_n(exponent_.add(), d_, std::uint8_t{0});
    return size() - 1;
}

std::size_t BoxStore::add_copy(std::size_t row) {
    std::int64_t* index = index_.add();
    std::uint8_t* exponent = exponent_.add();
    std::copy_n(index_.row(row), d_, index);
    std::copy_n(exponent_.row(row), d_, exponent);
    return size() - 1;
}

double BoxStore::centre(std::int64_t i, std::uint8_t e) const {
    const std::int64_t numerator = 2 * i + 1;
    if (numerator > exact) {
        return wide_ratio(numerator, 2 * powers_[e]);
    }
    // K^e < 2^53, and halving is exact.
    return 0.5 * (static_cast<double>(numerator) / static_cast<double>(powers_[e]));
}

void BoxStore::centre(std::size_t row, double* out) const {
    const std::int64_t* i = index_.row(row);
    const std::uint8_t* e = exponent_.row(row);
    for (std::size_t axis = 0; axis < d_; ++axis) {
        out[axis] = centre(i[axis], e[axis]);
    }
}

std::int64_t BoxStore::longest_axis(const Axes& axes, std::size_t row) const {
    const std::int64_t* i = index_.row(row);
    const std::uint8_t* e = exponent_.row(row);
    std::int64_t longest = -1;
    for (std::size_t axis = 0; axis < d_; ++axis) {
        if ((longest < 0 || e[axis] < e[static_cast<std::size_t>(longest)]) &&
            is_divisible(axes, axis, i[axis], e[axis])) {
            longest = static_cast<std::int64_t>(axis);
        }
    }
    return longest;
}

}  // namespace fractopt
