// Boxes of the unit cube as rows of integers: an index i and an exponent e per axis,
//     [i / K^e, (i + 1) / K^e],   centre (2 i + 1) / (2 K^e),
// each the correctly rounded quotient of two integers. So the edges that siblings share are equal to
// the last bit, and for odd K the middle child has exactly its parent's centre: both are the same
// rational number, rounded once.
//
// Exponents rise as long as K^e < 2^53 (K = 3: 33 trisections of a side): that far the centres of two
// siblings are more than 2^-53 apart, so they are different doubles.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "axes.hpp"
#include "chunked.hpp"

namespace fractopt {

class BoxStore {
public:
    // No box yet. Throws std::invalid_argument for d < 1 or a base outside [2, 1024].
    BoxStore(std::int64_t dimension, std::int64_t base);

    std::int64_t dimension() const { return static_cast<std::int64_t>(d_); }
    std::int64_t base() const { return base_; }
    std::size_t size() const { return index_.size(); }

    std::size_t add_root();                  // [0, 1]^d
    std::size_t add_copy(std::size_t row);   // the same box again

    std::int64_t* index(std::size_t row) { return index_.row(row); }
    const std::int64_t* index(std::size_t row) const { return index_.row(row); }
    std::uint8_t* exponent(std::size_t row) { return exponent_.row(row); }
    const std::uint8_t* exponent(std::size_t row) const { return exponent_.row(row); }

    // The box becomes part number `slot`, 0 .. K-1, of itself along `axis`.
    void shrink(std::size_t row, std::size_t axis, std::int64_t slot) {
        std::int64_t& i = index_.row(row)[axis];
        i = i * base_ + slot;
        ++exponent_.row(row)[axis];
    }

    // The interval [i / K^e, (i + 1) / K^e] of an axis.
    double lower(std::int64_t i, std::uint8_t e) const {
        return static_cast<double>(i) / static_cast<double>(powers_[e]);
    }
    double upper(std::int64_t i, std::uint8_t e) const {
        return static_cast<double>(i + 1) / static_cast<double>(powers_[e]);
    }
    double centre(std::int64_t i, std::uint8_t e) const;
    void centre(std::size_t row, double* out) const;  // (d,)

    bool is_splittable(std::uint8_t e) const { return e + std::size_t{1} < powers_.size(); }

    // Whether a side holds more than one value, and its parts are exact.
    bool is_divisible(const Axes& axes, std::size_t axis, std::int64_t i, std::uint8_t e) const {
        return axes.is_continuous(axis) ? e < continuous_limit_
                                        : is_splittable(e) && axes.is_divisible(axis, lower(i, e), upper(i, e));
    }

    // The longest divisible side (ties: lowest axis), or -1.
    std::int64_t longest_axis(const Axes& axes, std::size_t row) const;

private:
    std::size_t d_;
    std::int64_t base_;
    std::uint8_t continuous_limit_ = 0;   // least e with K^e >= 2^43
    std::vector<std::int64_t> powers_;    // K^0, K^1, ... < 2^53
    Chunked<std::int64_t> index_;         // (n, d)
    Chunked<std::uint8_t> exponent_;      // (n, d)
};

}  // namespace fractopt
