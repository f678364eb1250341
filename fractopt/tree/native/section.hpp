// What SOO and SequOOL share: boxes split into K along their longest side, children evaluated at their
// centres, the middle child of an odd K with its parent's centre and value.
//
// A Scored event gives the next nodes to be asked for imagined values instead. Such a leaf is selected by
// that value, but never split: a search that selects it asks for it, and it loses the value until it is told.
// (SOO alone does so, for fractopt/optimizer/bamsoo.py.)
#pragma once

#include <cstdint>
#include <unordered_set>
#include <vector>

#include "axes.hpp"
#include "box_tree.hpp"
#include "search.hpp"

namespace fractopt {

class SectionSearch : public Search {
public:
    SectionSearch(Axes axes, std::int64_t children);

    std::size_t dimension() const override { return axes_.dimension(); }
    void set_budget(std::int64_t evaluations) override { budget_ = evaluations; }
    void apply(const Event& event) override;

    const BoxTree& tree() const { return tree_; }
    std::int64_t expansions() const { return expansions_; }

protected:
    // What is left of a decision once the Asked are out; false where nothing is to be expanded.
    bool decide_asked(std::int64_t n, Event& event) const;

    bool is_imagined(BoxTree::Node leaf) const { return imagined_.count(leaf) > 0; }

    // Makes an event that has nothing but its nodes the one that asks for them.
    void ask(Event& event) const;

    // Splits the leaf along its longest side when applied; appended to an Expanded event.
    void add_expansion(BoxTree::Node leaf, Event& event) const;

    // Of the leaves whose value is still pending: the oldest that can be split and is no deeper than
    // `deepest`; -1 if there is none.
    BoxTree::Node pending_leaf(std::int64_t deepest) const;

    virtual void applied(const Event& expanded) = 0;

    Axes axes_;
    BoxTree tree_;
    Running running_;
    std::int64_t budget_ = std::numeric_limits<std::int64_t>::max();
    std::int64_t asked_ = 0;  // evaluations
    std::int64_t expansions_ = 0;

private:
    bool inherits(BoxTree::Node node) const {
        return tree_.base() % 2 == 1 && node > 0 && tree_.slot(node) == tree_.base() / 2;
    }
    void set_value(BoxTree::Node leaf, double value);
    void apply_asked(const Event& event);
    void apply_scored(const Event& event);
    BoxTree::Node next_unasked();  // the number of nodes where nothing is left
    void expand(BoxTree::Node leaf, std::int64_t axis);

    BoxTree::Node unasked_ = 0;  // the oldest node to be evaluated: nodes are asked in their order
    std::unordered_set<BoxTree::Node> imagined_;  // leaves whose value is
    std::vector<double> point_;
};

}  // namespace fractopt
