// The optimizer contract in C++: decide, apply. `decide` is const; `apply` is the only change and makes
// no choice. What Python journals and folds are these events; the fast path of cheap functions loops over
// the very same two calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

namespace fractopt {

// One event, of fractopt.trial: arrays, one item is n = 1. Reused from decision to decision.
struct Event {
    enum class Type { none, asked, told, expanded, selected, scored };

    Type type = Type::none;
    std::vector<std::int64_t> id;    // asked, told: the trials
    std::vector<std::int64_t> node;  // asked, expanded, selected, scored
    std::vector<std::int64_t> slot;  // asked; expanded: the axis
    std::vector<double> unit;        // asked: (n, d)
    std::vector<double> value;       // told: the loss, +inf for none; scored
    std::int64_t sweep = 0;          // expanded, selected
    std::int64_t depth = 0;          // expanded
    double bound = 0.0;              // expanded

    void clear() {
        type = Type::none;
        id.clear();
        node.clear();
        slot.clear();
        unit.clear();
        value.clear();
        sweep = depth = 0;
        bound = 0.0;
    }
};

constexpr double infinity = std::numeric_limits<double>::infinity();

class Search {
public:
    virtual ~Search() = default;

    virtual std::size_t dimension() const = 0;

    // The number of evaluations there are for the search, or a later change of it.
    virtual void set_budget(std::int64_t evaluations) = 0;

    // The next event into `event`: up to n points, or a change of the tree; type none to wait while
    // trials run, and for good where none does.
    virtual void decide(std::int64_t n, Event& event) const = 0;

    // Throws std::invalid_argument where a recorded point is not this search's: the message names the trial.
    virtual void apply(const Event& event) = 0;

protected:
    // Checks trial number `row` of an Asked event, bit for bit, against what this search asks for next.
    void check_asked(const Event& event, std::size_t row, std::int64_t node, std::int64_t slot,
                     const double* point) const;
};

// The trials asked and not yet told, by id: who asked for them. Memory for the span of running ids only.
class Running {
public:
    bool empty() const { return count_ == 0; }

    void add(std::int64_t id, std::int64_t owner) {
        if (code_.empty()) {
            first_ = id;
        }
        const std::int64_t offset = id - first_;
        if (offset < static_cast<std::int64_t>(code_.size())) {
            throw std::invalid_argument("trial " + std::to_string(id) + " was asked before");
        }
        code_.resize(static_cast<std::size_t>(offset), -1);  // ids that are not ours
        code_.push_back(owner);
        ++count_;
    }

    // Takes the trial out and returns its owner. Throws std::invalid_argument where it does not run.
    std::int64_t finish(std::int64_t id) {
        const std::int64_t offset = id - first_;
        if (offset < 0 || offset >= static_cast<std::int64_t>(code_.size()) ||
            code_[static_cast<std::size_t>(offset)] < 0) {
            throw std::invalid_argument("trial " + std::to_string(id) + " was told, but does not run");
        }
        const std::int64_t owner = code_[static_cast<std::size_t>(offset)];
        code_[static_cast<std::size_t>(offset)] = -1;
        --count_;
        while (!code_.empty() && code_.front() < 0) {
            code_.pop_front();
            ++first_;
        }
        return owner;
    }

    // Calls visit(owner) for every running trial, oldest first.
    template <typename Visit> void each(const Visit& visit) const {
        for (const std::int64_t owner : code_) {
            if (owner >= 0) {
                visit(owner);
            }
        }
    }

private:
    std::int64_t first_ = 0;
    std::int64_t count_ = 0;
    std::deque<std::int64_t> code_;  // by id - first_; -1: not ours, or told
};

}  // namespace fractopt
