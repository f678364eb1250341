// DIRECT and DIRECT-L; the algorithm and its departures are told in fractopt/optimizer/direct.py.
//
// One row an evaluated point, and no inner nodes: a box that is divided keeps its row and its centre, and
// the points sampled around it become boxes of their own. Rows rise in order of creation, which is the
// order in which points are asked for.
#pragma once

#include <cstdint>
#include <deque>
#include <unordered_map>
#include <vector>

#include "axes.hpp"
#include "best_first.hpp"
#include "box_store.hpp"
#include "chunked.hpp"
#include "search.hpp"

namespace fractopt {

class DirectSearch : public Search {
public:
    using Row = std::int64_t;

    // `local` is DIRECT-L: boxes are measured by their longest side, one box a size is chosen.
    DirectSearch(Axes axes, bool local, double epsilon);

    std::size_t dimension() const override { return axes_.dimension(); }
    void set_budget(std::int64_t) override {}
    void decide(std::int64_t n, Event& event) const override;
    void apply(const Event& event) override;

    std::int64_t size() const { return static_cast<std::int64_t>(store_.size()); }
    std::int64_t iteration() const { return iteration_; }

    // Each writes d numbers for the box of a row; a point that was not told yet may still shrink.
    void centre(Row row, double* out) const;
    void lower(Row row, double* out) const;
    void upper(Row row, double* out) const;
    void exponents(Row row, std::int64_t* out) const;
    bool is_box(Row row) const { return state_[at(row)] != State::sample; }

private:
    enum class State : std::uint8_t { sample, leaf, open, closed };

    // A chosen box and the 2 m points sampled around it: rows first .. first + 2 m - 1, by rising axis,
    // lower side first.
    struct Family {
        Row box;
        Row first;
        std::int32_t points;
        std::int32_t missing;  // not told yet
        bool divided;
    };

    struct Group {
        double size;
        BestFirst leaves;
    };

    std::size_t at(Row row) const;
    void longest_axes(Row row, std::vector<std::size_t>& out) const;
    Row add_row(Row from);
    std::int32_t group_of(std::size_t row);
    void enter(Row row);
    void purge(std::int32_t group);
    bool holds(const Entry& entry, std::int32_t group) const {
        const auto row = static_cast<std::size_t>(entry.node);
        return state_[row] == State::leaf && group_[row] == group && value_[row] == entry.value;
    }

    void decide_asked(std::int64_t n, Event& event) const;
    void decide_selected(Event& event) const;
    void add_division(const Family& family, Event& event) const;

    void apply_asked(const Event& event);
    void apply_told(const Event& event);
    void apply_selected(const Event& event);
    void apply_expanded(const Event& event);

    Axes axes_;
    bool local_;
    double epsilon_;
    BoxStore store_;
    Chunked<double> value_;        // (n,) told, or the stand-in, or NaN
    Chunked<std::int32_t> group_;  // (n,)
    Chunked<std::int32_t> slot_;   // (n,) 2 axis + (0 lower, 1 upper side); 0 for the root
    Chunked<State> state_;         // (n,)
    Chunked<bool> known_;          // (n,) whether the value was told

    std::deque<Family> families_;  // not divided yet, oldest first
    std::int64_t complete_ = 0;    // of these, with all points told
    Row unasked_ = 0;
    Running running_;
    std::int64_t iteration_ = 0;
    double best_ = infinity;
    double worst_ = -infinity;  // of the finite values

    std::vector<Group> groups_;
    std::vector<std::int32_t> by_size_;  // groups, smallest first
    std::vector<std::int32_t> regular_;  // (e, longest sides) of a box that all axes divide -> group, or -1
    std::unordered_map<std::int64_t, std::int32_t> irregular_;
    std::vector<double> point_;
    std::vector<std::size_t> scratch_;
};

}  // namespace fractopt
