// FDA and its parts; the algorithm and its departures are told in fractopt/optimizer/fda.py.
//
// Five parts can be exchanged, each for another that has the same few functions (fda_parts.hpp): the
// geometry of the regions, the tree search that picks the next one, the exploration (which points of a
// region are evaluated), the scoring of a region from them, and the exploitation at the last level.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "axes.hpp"
#include "chunked.hpp"
#include "coordinate_search.hpp"
#include "fda_parts.hpp"
#include "search.hpp"

namespace fractopt {

struct FdaSettings {
    Geometry::Kind geometry = Geometry::Kind::sphere;
    Order order = Order::move_up;
    Exploration exploration = Exploration::phs;
    Scoring scoring = Scoring::ratio;
    bool in_turn = true;      // how siblings are scored, see add_scores
    bool exploits = true;
    double inflation = 1.75;  // alpha
    double radius = 0.5;      // r_0
    std::int64_t depth = 0;   // k; 0: by the budget
    double least_step = 0.0;  // of the local search
};

class FdaSearch : public Search {
public:
    using Region = std::int64_t;

    FdaSearch(Axes axes, const FdaSettings& settings);

    std::size_t dimension() const override { return axes_.dimension(); }
    void set_budget(std::int64_t evaluations) override;
    void decide(std::int64_t n, Event& event) const override;
    void apply(const Event& event) override;

    std::int64_t size() const { return static_cast<std::int64_t>(parent_.size()); }
    std::int64_t depth() const { return k_; }
    std::int64_t level(Region region) const { return level_[at(region)]; }
    Region parent(Region region) const { return parent_[at(region)]; }
    double radius(std::int64_t level) const { return geometry_->radius(level); }
    double score(Region region) const { return score_[at(region)]; }
    void centre(Region region, double* out) const;  // (d,)
    // Evaluations of exploration before the first local search: 6 D (k - 1) for the paper's parts.
    std::int64_t before_exploitation(std::int64_t depth) const;
    std::int64_t local_searches() const { return local_searches_; }

private:
    // The children of one region, whose points are all told before they are scored.
    struct Family {
        Region first;
        std::int64_t regions;
        std::int64_t missing;
        bool scored;
        std::vector<double> value;  // (regions, points), NaN until told
        double best;                // the best known when the region was expanded, and where
        std::vector<double> best_point;
    };

    struct Task {
        Region region;
        std::int32_t slot;
    };

    std::size_t at(Region region) const;
    bool explores(std::int64_t level) const { return !settings_.exploits || level < k_; }
    void point(Region region, std::int64_t slot, double* out) const;
    double key(Region region) const;
    void open(Region region);

    void add_scores(const Family& family, Event& event) const;
    void apply_asked(const Event& event);
    void apply_told(const Event& event);
    void tell_local(Region region, std::int64_t slot, double value);
    void expand(Region region);

    Axes axes_;
    FdaSettings settings_;
    std::unique_ptr<Geometry> geometry_;
    std::int64_t k_;
    std::int64_t points_;  // of a region's exploration

    Chunked<std::int32_t> parent_;  // (n,), -1 for the root
    Chunked<std::int32_t> slot_;    // (n,) which child of its parent
    Chunked<std::int32_t> level_;   // (n,)
    Chunked<double> score_;         // (n,), lower is better

    std::set<std::pair<std::pair<double, double>, Region>> open_;
    std::deque<Family> families_;  // not scored yet, oldest first
    std::int64_t complete_ = 0;    // of these, with all points told
    std::map<Region, CoordinateSearch> locals_;
    std::deque<Task> unasked_;
    Running running_;
    std::int64_t expansions_ = 0;
    std::int64_t local_searches_ = 0;

    double best_ = infinity;
    std::vector<double> best_point_;
    mutable std::vector<double> scratch_;  // no state: written before it is read, in every call
    std::vector<std::int64_t> slots_;      // the same
};

}  // namespace fractopt
