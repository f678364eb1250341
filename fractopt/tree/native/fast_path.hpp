// The loop of cheap functions: decide, evaluate an array of points, apply; no journal, no trial objects.
#pragma once

#include <cstdint>
#include <vector>

#include "block.hpp"
#include "search.hpp"

namespace fractopt {

// From the unit cube to native values, as fractopt.space.Float has it.
class Scale {
public:
    // low, high and log (d,)
    Scale(std::vector<double> low, std::vector<double> high, std::vector<bool> log);

    std::size_t dimension() const { return low_.size(); }
    void decode(const double* unit, std::size_t points, double* native) const;  // (points, d)

private:
    std::vector<double> low_, high_, start_, extent_;  // start and extent of the logarithm where log
    std::vector<bool> log_;
};

struct Best {
    std::int64_t evaluations = 0;
    double value = infinity;
    std::vector<double> unit;  // empty while no value was finite
    bool exhausted = false;    // nothing was left to propose
};

// `evaluate(unit, points, loss)` writes the losses (points,) of points (points, d); NaN counts as +inf.
// Each Asked event is evaluated before the next decision: one worker's sequence, whatever `most` is, the
// largest number of points at once. Trials are numbered from `first_id`. `block`, where there is one, gets
// every event; where `evaluate` throws it ends before the points that were asked for.
template <typename Evaluate>
Best run(Search& search, std::int64_t budget, std::int64_t most, std::int64_t first_id, Block* block,
         const Evaluate& evaluate) {
    Best best;
    Event event, told;
    std::int64_t id = first_id;
    while (best.evaluations < budget) {
        search.decide(std::min(most, budget - best.evaluations), event);
        if (event.type == Event::Type::none) {
            best.exhausted = true;  // nothing runs
            break;
        }
        if (event.type != Event::Type::asked) {
            search.apply(event);
            if (block) {
                block->add(event, {});
            }
            continue;
        }
        const std::size_t points = event.node.size();
        event.id.resize(points);
        for (auto& number : event.id) {
            number = id++;
        }
        search.apply(event);
        told.clear();
        told.type = Event::Type::told;
        told.id = event.id;
        told.value.resize(points);
        evaluate(event.unit.data(), points, told.value.data());
        for (std::size_t row = 0; row < points; ++row) {
            double& value = told.value[row];
            value = value != value ? infinity : value;
            if (value < best.value) {
                best.value = value;
                const double* point = event.unit.data() + row * search.dimension();
                best.unit.assign(point, point + search.dimension());
            }
        }
        search.apply(told);
        if (block) {
            block->add(event, told.value);
        }
        best.evaluations += static_cast<std::int64_t>(points);
    }
    return best;
}

}  // namespace fractopt
