#include "coordinate_search.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace fractopt {

namespace {

constexpr double pending = std::numeric_limits<double>::quiet_NaN();

}  // namespace

CoordinateSearch::CoordinateSearch(const Axes& axes, std::vector<double> start, double step, double least_step)
    : axes_(&axes),
      x_(std::move(start)),
      side_(2 * x_.size(), pending),
      fx_(pending),
      step_(step),
      first_step_(step),
      least_step_(least_step) {}

// Where the search goes from x along one axis; false where that is x again, or was tried in vain.
bool CoordinateSearch::moved(std::size_t axis, bool down, double& u) const {
    double step = step_;
    if (!axes_->is_continuous(axis)) {
        // A step of a discrete axis leads to another cell; after three halvings one cell was tried enough.
        const double cell = 1.0 / static_cast<double>(axes_->cells(axis));
        if (step < cell && step < first_step_ / 8.0) {
            return false;
        }
        step = std::max(step, cell);
    }
    u = std::clamp(down ? x_[axis] - step : x_[axis] + step, 0.0, 1.0);
    return u != x_[axis];
}

void CoordinateSearch::point(std::int64_t slot, double* out) const {
    std::copy(x_.begin(), x_.end(), out);
    if (slot > 0) {
        const auto axis = static_cast<std::size_t>((slot - 1) / 2);
        moved(axis, slot % 2 == 0, out[axis]);
    }
}

void CoordinateSearch::ask(std::size_t axis, std::vector<std::int64_t>& slots) {
    for (const bool down : {false, true}) {
        double u = 0.0;
        const bool has_point = moved(axis, down, u);
        side_[2 * axis + down] = has_point ? pending : std::numeric_limits<double>::infinity();
        if (has_point) {
            slots.push_back(static_cast<std::int64_t>(1 + 2 * axis + down));
        }
    }
    asked_ = axis + 1;
}

std::int64_t CoordinateSearch::axis_ahead() const {
    for (std::size_t axis = asked_; axis < x_.size(); ++axis) {
        double u = 0.0;
        if (moved(axis, false, u) || moved(axis, true, u)) {
            return static_cast<std::int64_t>(axis);
        }
    }
    return -1;
}

void CoordinateSearch::look_ahead(std::vector<std::int64_t>& slots) {
    const std::int64_t next = axis_ahead();
    while (static_cast<std::int64_t>(asked_) <= next) {
        ask(asked_, slots);
    }
}

void CoordinateSearch::tell(std::int64_t slot, double value, std::vector<std::int64_t>& slots) {
    if (slot == 0) {
        fx_ = value;
    } else {
        side_[static_cast<std::size_t>(slot - 1)] = value;
    }
    if (std::isnan(fx_)) {
        return;
    }
    while (true) {
        if (axis_ == x_.size()) {
            axis_ = asked_ = 0;
            if (!improved_) {
                step_ /= 2.0;
                over_ = step_ < least_step_;
            }
            improved_ = false;
            if (over_) {
                return;
            }
        }
        if (asked_ == axis_) {
            ask(axis_, slots);
        }
        const double* side = side_.data() + 2 * axis_;
        if (std::isnan(side[0]) || std::isnan(side[1])) {
            return;
        }
        const bool down = side[1] < side[0];  // a tie goes up
        if (side[down] < fx_) {               // the best becomes current at once
            fx_ = side[down];
            moved(axis_, down, x_[axis_]);
            improved_ = true;
            asked_ = axis_ + 1;  // what lies ahead was asked for around another x
            ++moves_;
        }
        ++axis_;
    }
}

}  // namespace fractopt
