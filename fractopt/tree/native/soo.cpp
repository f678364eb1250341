#include "soo.hpp"

#include <algorithm>
#include <cmath>

namespace fractopt {

std::int64_t SooSearch::h_max() const {
    if (rule_ == Depth::log) {  // ln 0: the root alone
        return static_cast<std::int64_t>(10.0 * std::pow(std::log(double(std::max<std::int64_t>(expansions_, 1))), 1.5));
    }
    auto root = static_cast<std::int64_t>(std::sqrt(double(expansions_)));  // floor, also where sqrt rounds
    root -= root * root > expansions_;
    return root + ((root + 1) * (root + 1) <= expansions_);
}

void SooSearch::decide(std::int64_t n, Event& event) const {
    if (decide_asked(n, event)) {
        return;
    }
    // The rest of the sweep.
    const std::int64_t last = std::min(tree_.deepest(), h_max());
    for (std::int64_t depth = depth_; depth <= last; ++depth) {
        const BoxTree::Node leaf = tree_.best(depth);
        if (leaf >= 0 && tree_.value(leaf) <= bound_) {
            return expansion(leaf, sweep_, depth, tree_.value(leaf), event);
        }
    }
    // A new sweep: with the bound at +inf the first eligible leaf is split.
    const auto shallowest = [&](std::int64_t first, std::int64_t deepest) {
        for (std::int64_t depth = first; depth <= deepest; ++depth) {
            const BoxTree::Node leaf = tree_.best(depth);
            if (leaf >= 0) {
                expansion(leaf, sweep_ + 1, depth, tree_.value(leaf), event);
                return true;
            }
        }
        return false;
    };
    if (shallowest(0, last)) {
        return;
    }
    // Blind, beside the sweep, which stays where it is; see the departures.
    const BoxTree::Node leaf = pending_leaf(tree_.deepest());
    if (leaf >= 0) {
        return expansion(leaf, sweep_, depth_ - 1, bound_, event);
    }
    shallowest(last + 1, tree_.deepest());
}

void SooSearch::expansion(BoxTree::Node leaf, std::int64_t sweep, std::int64_t depth, double bound,
                          Event& event) const {
    if (is_imagined(leaf)) {
        event.node.push_back(leaf);
        return ask(event);
    }
    add_expansion(leaf, event);
    event.sweep = sweep;
    event.depth = depth;
    event.bound = bound;
}

void SooSearch::applied(const Event& expanded) {
    sweep_ = expanded.sweep;
    depth_ = expanded.depth + 1;
    bound_ = expanded.bound;
}

}  // namespace fractopt
