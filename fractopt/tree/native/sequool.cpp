#include "sequool.hpp"

#include <algorithm>
#include <cmath>

namespace fractopt {

namespace {

// The first n of a search without an end; each further round has twice as much.
constexpr std::int64_t endless_openings = 64;
constexpr std::int64_t endless = std::int64_t{1} << 50;

}  // namespace

std::int64_t sequool_depth(std::int64_t openings) {
    double harmonic = 0.0;
    if (openings <= 10'000'000) {
        for (std::int64_t i = 1; i <= openings; ++i) {
            harmonic += 1.0 / static_cast<double>(i);
        }
    } else {
        const auto n = static_cast<double>(openings);
        harmonic = std::log(n) + 0.57721566490153286 + 0.5 / n;
    }
    return openings < 1 ? 0 : static_cast<std::int64_t>(static_cast<double>(openings) / harmonic);
}

SequoolSearch::SequoolSearch(Axes axes, std::int64_t children, std::int64_t openings, bool waits)
    : SectionSearch(std::move(axes), children), openings_(openings), waits_(waits) {}

void SequoolSearch::set_budget(std::int64_t evaluations) {
    SectionSearch::set_budget(evaluations);
    if (expansions_ == 0) {
        begin(0);
    }
}

std::int64_t SequoolSearch::depth_of(std::int64_t round) const {
    if (round == 0 && openings_ > 0) {
        return sequool_depth(openings_);
    }
    if (budget_ >= endless) {
        return sequool_depth(endless_openings << std::min<std::int64_t>(round, 30));
    }
    const std::int64_t cost = tree_.base() - tree_.base() % 2;  // evaluations an opening
    const std::int64_t left = budget_ - (round == 0 ? 1 : asked_);
    return std::max<std::int64_t>(sequool_depth(left / cost), 1);
}

void SequoolSearch::begin(std::int64_t round) {
    h_max_ = depth_of(round);  // before the round: it is the budget left at its begin that counts
    round_ = round;
    opened_.assign(static_cast<std::size_t>(h_max_) + 1, 0);
}

std::int64_t SequoolSearch::opened(std::int64_t depth) const {
    return depth < static_cast<std::int64_t>(opened_.size()) ? opened_[static_cast<std::size_t>(depth)] : 0;
}

void SequoolSearch::decide(std::int64_t n, Event& event) const {
    if (decide_asked(n, event)) {
        return;
    }
    if (waits_ && !running_.empty()) {
        return;
    }
    // Without waiting no more is opened than workers are idle for: what comes in meanwhile is used.
    const std::int64_t cost = tree_.base() - tree_.base() % 2;
    const std::int64_t most = waits_ || running_.empty() ? tree_.size() : (n + cost - 1) / cost;
    std::vector<BoxTree::Node> leaves;
    const auto level = [&](std::int64_t depth, std::int64_t count, std::int64_t round) {
        leaves.clear();
        tree_.best(depth, std::min(count, most), leaves);
        for (const BoxTree::Node leaf : leaves) {
            add_expansion(leaf, event);
            event.bound = tree_.value(leaf);
        }
        event.sweep = round;
        event.depth = depth;
        return !leaves.empty();
    };
    for (std::int64_t depth = 0; depth <= std::min(h_max_, tree_.deepest()); ++depth) {
        if (opened(depth) < quota(depth, h_max_) && level(depth, quota(depth, h_max_) - opened(depth), round_)) {
            return;
        }
    }
    if (!running_.empty()) {
        // All that could be opened is pending: the oldest of it is opened blind, where its depth has openings left.
        std::int64_t deepest = std::min(h_max_, tree_.deepest());
        while (deepest >= 0 && opened(deepest) >= quota(deepest, h_max_)) {
            --deepest;
        }
        const BoxTree::Node leaf = pending_leaf(deepest);
        if (leaf >= 0 && opened(tree_.depth(leaf)) < quota(tree_.depth(leaf), h_max_)) {
            add_expansion(leaf, event);
            event.sweep = round_;
            event.depth = tree_.depth(leaf);
            event.bound = infinity;
            return;
        }
    }
    const std::int64_t next = depth_of(round_ + 1);
    for (std::int64_t depth = 0; depth <= tree_.deepest(); ++depth) {
        // Beyond the depth of the round too, where nothing is left above: a search ends with its leaves.
        if (level(depth, std::max<std::int64_t>(quota(depth, next), 1), round_ + 1)) {
            return;
        }
    }
    const BoxTree::Node leaf = pending_leaf(tree_.deepest());
    if (leaf >= 0) {
        add_expansion(leaf, event);
        event.sweep = round_;
        event.depth = tree_.depth(leaf);
        event.bound = infinity;
    }
}

void SequoolSearch::applied(const Event& expanded) {
    if (expanded.sweep != round_) {
        begin(expanded.sweep);
    }
    const auto depth = static_cast<std::size_t>(expanded.depth);
    if (depth >= opened_.size()) {
        opened_.resize(depth + 1, 0);
    }
    opened_[depth] += static_cast<std::int64_t>(expanded.node.size());
}

}  // namespace fractopt
