// The parts of FDA that can be exchanged. To add one: a name here, its case in fda_parts.cpp, its name in
// bind.cpp and in the settings of fractopt/optimizer/fda.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace fractopt {

// Regions by level; all regions of a level have the same shape.
class Geometry {
public:
    enum class Kind { sphere, box };

    static std::unique_ptr<Geometry> make(Kind kind, std::size_t dimension, double radius);
    virtual ~Geometry() = default;

    virtual std::int64_t children() const = 0;
    // Moves a centre of `level` - 1 to that of its child number `slot`, which has `level`.
    virtual void descend(std::int64_t level, std::int64_t slot, double* centre) const = 0;
    // The radius of a level; for boxes half the longest side.
    virtual double radius(std::int64_t level) const = 0;
    // How far a point along the diagonal (1, ..., 1) lies from the centre on `axis`, without inflation.
    virtual double spread(std::int64_t level, std::size_t axis) const = 0;
};

// Which region is next: the key by which open regions are sorted, lower first; then the score, then age.
enum class Order { move_up, best_first, breadth_first };
double order_key(Order order, std::int64_t level);

// The points of a region: phs has its centre and two points on its diagonal, centre the first alone.
enum class Exploration { phs, centre };
std::int64_t exploration_points(Exploration exploration);

// The score of a region from the values (points,) and the distances (points,) of its points to the best
// point known, where `best` was found; lower is better. Points without a finite value do not count; +inf
// if there is no other.
enum class Scoring { ratio, improvement, least, mean, median };
double score(Scoring scoring, const std::vector<double>& value, const std::vector<double>& distance, double best);

}  // namespace fractopt
