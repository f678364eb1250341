#include "fda_parts.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace fractopt {

namespace {

// 2D balls in a ball: centre c +- (r - r') e_i, r' = r / (1 + sqrt 2), so that neighbours on different
// axes touch: sqrt 2 (r - r') = 2 r'.
class Spheres : public Geometry {
public:
    Spheres(std::size_t dimension, double radius)
        : dimension_(static_cast<std::int64_t>(dimension)), root_(std::sqrt(static_cast<double>(dimension))) {
        for (int level = 0; level < 64; ++level, radius /= 1.0 + std::sqrt(2.0)) {
            radius_.push_back(radius);
        }
    }
    std::int64_t children() const override { return 2 * dimension_; }
    void descend(std::int64_t level, std::int64_t slot, double* centre) const override {
        const double shift = radius(level - 1) - radius(level);
        double& u = centre[slot / 2];
        // Clipped where the root ball is wider than the cube (coverage = "cube").
        u = std::clamp(slot % 2 == 0 ? u + shift : u - shift, 0.0, 1.0);
    }
    double radius(std::int64_t level) const override { return radius_[static_cast<std::size_t>(level)]; }
    double spread(std::int64_t level, std::size_t) const override { return radius(level) / root_; }

private:
    std::int64_t dimension_;
    double root_;
    std::vector<double> radius_;
};

// Three boxes in a box, along the axes in turn.
class Thirds : public Geometry {
public:
    explicit Thirds(std::size_t dimension) : dimension_(static_cast<std::int64_t>(dimension)) {}
    std::int64_t children() const override { return 3; }
    void descend(std::int64_t level, std::int64_t slot, double* centre) const override {
        const std::int64_t axis = (level - 1) % dimension_;
        centre[axis] += static_cast<double>(slot - 1) * 2.0 * spread(level, static_cast<std::size_t>(axis));
    }
    double radius(std::int64_t level) const override {
        return spread(level, static_cast<std::size_t>(dimension_ - 1));
    }
    double spread(std::int64_t level, std::size_t axis) const override {
        const std::int64_t cuts = (level + dimension_ - 1 - static_cast<std::int64_t>(axis)) / dimension_;
        return 0.5 / std::pow(3.0, static_cast<double>(cuts));
    }

private:
    std::int64_t dimension_;
};

}  // namespace

std::unique_ptr<Geometry> Geometry::make(Kind kind, std::size_t dimension, double radius) {
    if (kind == Kind::box) {
        return std::make_unique<Thirds>(dimension);
    }
    return std::make_unique<Spheres>(dimension, radius);
}

double order_key(Order order, std::int64_t level) {
    switch (order) {
        case Order::move_up:  // the deepest level first
            return -static_cast<double>(level);
        case Order::breadth_first:
            return static_cast<double>(level);
        default:
            return 0.0;
    }
}

std::int64_t exploration_points(Exploration exploration) { return exploration == Exploration::phs ? 3 : 1; }

double score(Scoring scoring, const std::vector<double>& value, const std::vector<double>& distance, double best) {
    constexpr double tiny = 1e-20;  // as zellij has it: a region that holds the best point has distance 0
    std::vector<double> known;
    for (std::size_t j = 0; j < value.size(); ++j) {
        if (!std::isfinite(value[j])) {
            continue;
        }
        if (scoring == Scoring::ratio) {
            known.push_back(-value[j] / (distance[j] + tiny));
        } else if (scoring == Scoring::improvement) {
            known.push_back((value[j] - best) / (distance[j] + tiny));
        } else {
            known.push_back(value[j]);
        }
    }
    if (known.empty()) {
        return std::numeric_limits<double>::infinity();
    }
    switch (scoring) {
        case Scoring::mean:
            return std::accumulate(known.begin(), known.end(), 0.0) / static_cast<double>(known.size());
        case Scoring::median: {
            std::sort(known.begin(), known.end());
            return 0.5 * (known[(known.size() - 1) / 2] + known[known.size() / 2]);
        }
        default:  // ratio: the greatest, whose negative is the least
            return *std::min_element(known.begin(), known.end());
    }
}

}  // namespace fractopt
