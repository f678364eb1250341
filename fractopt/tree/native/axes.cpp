#include "axes.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace fractopt {

Axes::Axes(std::vector<std::vector<double>> edges) : edges_(std::move(edges)) {
    if (edges_.empty()) {
        throw std::invalid_argument("a search needs at least one axis");
    }
    for (const auto& axis : edges_) {
        if (!axis.empty() && (axis.size() < 3 || !std::is_sorted(axis.begin(), axis.end()))) {
            throw std::invalid_argument("a discrete axis needs the rising edges of at least two cells");
        }
    }
}

std::size_t Axes::cell(std::size_t axis, double unit) const {
    const auto& edges = edges_[axis];
    const auto above = std::upper_bound(edges.begin(), edges.end(), unit) - edges.begin();
    return static_cast<std::size_t>(std::clamp<std::ptrdiff_t>(above - 1, 0, std::ptrdiff_t(edges.size()) - 2));
}

bool Axes::is_divisible(std::size_t axis, double lower, double upper) const {
    const auto& edges = edges_[axis];
    const auto last = std::lower_bound(edges.begin(), edges.end(), upper) - edges.begin();
    return std::clamp<std::ptrdiff_t>(last - 1, 0, std::ptrdiff_t(edges.size()) - 2) >
           std::ptrdiff_t(cell(axis, lower));
}

}  // namespace fractopt
