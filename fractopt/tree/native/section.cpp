#include "section.hpp"

#include <utility>

namespace fractopt {

SectionSearch::SectionSearch(Axes axes, std::int64_t children)
    : axes_(std::move(axes)),
      tree_(static_cast<std::int64_t>(axes_.dimension()), children),
      point_(axes_.dimension()) {}

bool SectionSearch::decide_asked(std::int64_t n, Event& event) const {
    event.clear();
    for (BoxTree::Node node = unasked_; node < tree_.size() && n > 0; ++node) {
        if (!inherits(node)) {
            event.node.push_back(node);
            --n;
        }
    }
    if (event.node.empty()) {
        return false;
    }
    ask(event);
    return true;
}

void SectionSearch::ask(Event& event) const {
    event.type = Event::Type::asked;
    for (const BoxTree::Node node : event.node) {
        event.slot.push_back(tree_.slot(node));
    }
    event.unit.resize(event.node.size() * dimension());
    for (std::size_t row = 0; row < event.node.size(); ++row) {
        tree_.centre(event.node[row], event.unit.data() + row * dimension());
    }
}

void SectionSearch::add_expansion(BoxTree::Node leaf, Event& event) const {
    event.type = Event::Type::expanded;
    event.node.push_back(leaf);
    event.slot.push_back(tree_.longest_axis(leaf, axes_));
}

BoxTree::Node SectionSearch::pending_leaf(std::int64_t deepest) const {
    BoxTree::Node found = -1;
    running_.each([&](std::int64_t node) {
        const bool centred = tree_.base() % 2 == 1;
        if (!centred && !tree_.is_leaf(node)) {
            return;  // for even K no child has the centre that is being evaluated
        }
        const BoxTree::Node leaf = tree_.heir(node);
        if ((found < 0 || leaf < found) && tree_.depth(leaf) <= deepest && tree_.longest_axis(leaf, axes_) >= 0) {
            found = leaf;
        }
    });
    return found;
}

void SectionSearch::apply(const Event& event) {
    switch (event.type) {
        case Event::Type::asked:
            apply_asked(event);
            break;
        case Event::Type::told:
            for (std::size_t row = 0; row < event.id.size(); ++row) {
                const BoxTree::Node node = running_.finish(event.id[row]);
                const bool centred = tree_.base() % 2 == 1;
                if (centred || tree_.is_leaf(node)) {
                    set_value(tree_.heir(node), event.value[row]);
                }
            }
            break;
        case Event::Type::expanded:
            for (std::size_t row = 0; row < event.node.size(); ++row) {
                expand(event.node[row], event.slot[row]);
            }
            applied(event);
            break;
        case Event::Type::scored:
            apply_scored(event);
            break;
        default:
            throw std::invalid_argument("this search knows the events asked, told, expanded and scored only");
    }
}

void SectionSearch::apply_asked(const Event& event) {
    for (std::size_t row = 0; row < event.id.size(); ++row) {
        const bool imagined = is_imagined(event.node[row]);
        const BoxTree::Node node = imagined ? event.node[row] : next_unasked();
        if (node == tree_.size()) {
            throw std::invalid_argument("trial " + std::to_string(event.id[row]) + " was recorded for node " +
                                        std::to_string(event.node[row]) + ", this tree asks for nothing");
        }
        tree_.centre(node, point_.data());
        check_asked(event, row, node, tree_.slot(node), point_.data());
        running_.add(event.id[row], node);
        ++asked_;
        if (imagined) {
            imagined_.erase(node);
            tree_.withdraw(node);
        } else {
            ++unasked_;
        }
    }
}

void SectionSearch::apply_scored(const Event& event) {
    for (std::size_t row = 0; row < event.node.size(); ++row) {
        const BoxTree::Node node = next_unasked();
        if (event.node[row] != node || node == tree_.size()) {
            throw std::invalid_argument("an imagined value was recorded for node " + std::to_string(event.node[row]) +
                                        ", this tree's next is node " + std::to_string(node) + " of " +
                                        std::to_string(tree_.size()));
        }
        // A leaf of a single point stays open too: it is not to be split, but may be worth its evaluation.
        tree_.set_value(node, event.value[row]);
        imagined_.insert(node);
        ++unasked_;
    }
}

BoxTree::Node SectionSearch::next_unasked() {
    while (unasked_ < tree_.size() && inherits(unasked_)) {
        ++unasked_;
    }
    return unasked_;
}

void SectionSearch::expand(BoxTree::Node leaf, std::int64_t axis) {
    if (is_imagined(leaf)) {
        throw std::invalid_argument("node " + std::to_string(leaf) + " was recorded as split, but its value is imagined");
    }
    const bool known = tree_.has_value(leaf);
    const BoxTree::Node first = tree_.split(leaf, axis);
    ++expansions_;
    if (tree_.base() % 2 == 1 && known) {
        set_value(first + tree_.base() / 2, tree_.value(leaf));
    }
}

void SectionSearch::set_value(BoxTree::Node leaf, double value) {
    if (tree_.longest_axis(leaf, axes_) < 0) {
        tree_.close(leaf);
    }
    tree_.set_value(leaf, value);
}

}  // namespace fractopt
