// A local search along the axes (ILS), the exploitation of FDA and an optimizer of its own. The rule is told
// in fractopt/optimizer/ils.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "axes.hpp"

namespace fractopt {

class CoordinateSearch {
public:
    // From `start` (d,) with the first omega `step`, until omega is halved below `least_step`. `axes` must
    // outlive it.
    CoordinateSearch(const Axes& axes, std::vector<double> start, double step, double least_step);

    // Slot 0 is the start, slots 1 + 2 i and 2 + 2 i are x + omega e_i and x - omega e_i, clipped to the cube.
    void point(std::int64_t slot, double* out) const;

    // The value of a slot that was asked for since the last move. Appends the slots to evaluate next.
    void tell(std::int64_t slot, double value, std::vector<std::int64_t>& slots);

    // The next axis of this pass that has a point to try and was not asked for; -1 if there is none.
    std::int64_t axis_ahead() const;
    // Appends the slots of `axis_ahead`, which hold unless a pending value makes x move.
    void look_ahead(std::vector<std::int64_t>& slots);

    // How often x has moved: what was asked for before a move, and not told, is void after it.
    std::int64_t moves() const { return moves_; }
    bool is_over() const { return over_; }

private:
    bool moved(std::size_t axis, bool down, double& u) const;
    void ask(std::size_t axis, std::vector<std::int64_t>& slots);

    const Axes* axes_;
    std::vector<double> x_;      // (d,)
    std::vector<double> side_;   // (2 d,) f(x + omega e_i), f(x - omega e_i); NaN while pending, +inf if not tried
    double fx_;                  // NaN until told
    double step_, first_step_, least_step_;
    std::size_t axis_ = 0;       // the axis to be decided
    std::size_t asked_ = 0;      // axes of this pass asked for; more than axis_ + 1 where one looked ahead
    bool improved_ = false;      // in this pass over the axes
    bool over_ = false;
    std::int64_t moves_ = 0;
};

}  // namespace fractopt
