// ILS, local searches along the axes from one start after the other; told in fractopt/optimizer/ils.py.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <vector>

#include "axes.hpp"
#include "coordinate_search.hpp"
#include "search.hpp"

namespace fractopt {

class IlsSearch : public Search {
public:
    // Writes the start (d,) of local search number k; the same whenever it is asked.
    using Start = std::function<void(std::int64_t k, double* start)>;

    IlsSearch(Axes axes, Start start, double step, double least_step);
    IlsSearch(const IlsSearch&) = delete;  // its local searches know where its axes are
    IlsSearch& operator=(const IlsSearch&) = delete;

    std::size_t dimension() const override { return axes_.dimension(); }
    void set_budget(std::int64_t) override {}
    void decide(std::int64_t n, Event& event) const override;
    void apply(const Event& event) override;

    std::int64_t local_searches() const { return begun_; }

private:
    // A point of local search number `search`, asked for after its move number `moves`.
    struct Task {
        std::int64_t search, slot, moves;
    };

    void apply_asked(const Event& event);
    void apply_told(std::int64_t id, double value);
    void apply_selected(std::int64_t search, std::int64_t axis);
    void plan(std::int64_t search, const std::vector<std::int64_t>& slots);

    Axes axes_;
    Start start_;
    double step_, least_step_;
    std::map<std::int64_t, CoordinateSearch> searches_;  // under way, by number
    std::int64_t begun_ = 0;
    std::deque<Task> unasked_;
    std::map<std::int64_t, Task> running_;  // by trial
};

}  // namespace fractopt
