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
            event.slot.push_back(tree_.slot(node));
            --n;
        }
    }
    if (event.node.empty()) {
        return false;
    }
    event.type = Event::Type::asked;
    event.unit.resize(event.node.size() * dimension());
    for (std::size_t row = 0; row < event.node.size(); ++row) {
        tree_.centre(event.node[row], event.unit.data() + row * dimension());
    }
    return true;
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
        default:
            throw std::invalid_argument("this search knows the events asked, told and expanded only");
    }
}

void SectionSearch::apply_asked(const Event& event) {
    for (std::size_t row = 0; row < event.id.size(); ++row) {
        while (unasked_ < tree_.size() && inherits(unasked_)) {
            ++unasked_;
        }
        if (unasked_ == tree_.size()) {
            throw std::invalid_argument("trial " + std::to_string(event.id[row]) + " was recorded for node " +
                                        std::to_string(event.node[row]) + ", this tree asks for nothing");
        }
        tree_.centre(unasked_, point_.data());
        check_asked(event, row, unasked_, tree_.slot(unasked_), point_.data());
        running_.add(event.id[row], unasked_);
        ++unasked_;
        ++asked_;
    }
}

void SectionSearch::expand(BoxTree::Node leaf, std::int64_t axis) {
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
