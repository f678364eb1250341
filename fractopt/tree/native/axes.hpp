// What the axes of the cube hold: a continuum, or cells of single values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fractopt {

class Axes {
public:
    // One entry an axis: empty for a continuous one, else the edges of its cells, rising from 0 to 1.
    explicit Axes(std::vector<std::vector<double>> edges);

    std::size_t dimension() const { return edges_.size(); }
    bool is_continuous(std::size_t axis) const { return edges_[axis].empty(); }
    std::size_t cells(std::size_t axis) const { return is_continuous(axis) ? 0 : edges_[axis].size() - 1; }

    // Whether [lower, upper] of a discrete axis holds more than one value; an interval that only touches
    // the next cell's edge holds none of it. As fractopt.space has it.
    bool is_divisible(std::size_t axis, double lower, double upper) const;

    // Two points of a continuous axis are one where they share a cell of 2^-44 (fractopt.space.RESOLUTION),
    // so sides of at most two cells are not divided: K^e < 2^43 in integers.
    static constexpr std::int64_t finest = std::int64_t{1} << 43;

private:
    std::size_t cell(std::size_t axis, double unit) const;

    std::vector<std::vector<double>> edges_;
};

}  // namespace fractopt
