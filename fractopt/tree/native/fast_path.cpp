#include "fast_path.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace fractopt {

Scale::Scale(std::vector<double> low, std::vector<double> high, std::vector<bool> log)
    : low_(std::move(low)), high_(std::move(high)), log_(std::move(log)) {
    if (high_.size() != low_.size() || log_.size() != low_.size()) {
        throw std::invalid_argument("a scale needs low, high and log of one length");
    }
    for (std::size_t axis = 0; axis < dimension(); ++axis) {
        start_.push_back(log_[axis] ? std::log(low_[axis]) : low_[axis]);
        extent_.push_back((log_[axis] ? std::log(high_[axis]) : high_[axis]) - start_[axis]);
    }
}

void Scale::decode(const double* unit, std::size_t points, double* native) const {
    for (std::size_t row = 0; row < points; ++row) {
        for (std::size_t axis = 0; axis < dimension(); ++axis, ++unit, ++native) {
            if (*unit <= 0.0 || *unit >= 1.0) {
                *native = *unit <= 0.0 ? low_[axis] : high_[axis];
                continue;
            }
            const double value = start_[axis] + *unit * extent_[axis];
            *native = std::clamp(log_[axis] ? std::exp(value) : value, low_[axis], high_[axis]);
        }
    }
}

}  // namespace fractopt
