#include "box_tree.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

namespace fractopt {

namespace {

constexpr std::int64_t exact = std::int64_t{1} << 53;  // integers up to here are doubles

[[noreturn]] void refuse(const std::string& message) { throw std::invalid_argument(message); }

std::string named(BoxTree::Node node) { return "node " + std::to_string(node); }

}  // namespace

BoxTree::BoxTree(std::int64_t dimension, std::int64_t base) : dimension_(dimension), base_(base) {
    if (dimension < 1) {
        refuse("a tree needs a dimension of at least 1, got " + std::to_string(dimension));
    }
    if (base < 2 || base > 1024) {
        refuse("a box is split into 2 to 1024 children, got " + std::to_string(base));
    }
    // Every power whose double stays below 2^53, so that 2 i + 1 <= 2 K^e is exact as well.
    for (std::int64_t power = 1; 2 * power < exact; power *= base) {
        powers_.push_back(power);
    }
    append(-1, 0, 0);
}

std::size_t BoxTree::at(Node node) const {
    if (node < 0 || node >= size()) {
        throw std::out_of_range(named(node) + " is not in this tree of " + std::to_string(size()) + " nodes");
    }
    return static_cast<std::size_t>(node);
}

std::size_t BoxTree::at(Node node, std::int64_t axis) const {
    if (axis < 0 || axis >= dimension_) {
        refuse("axis " + std::to_string(axis) + " is outside 0.." + std::to_string(dimension_ - 1));
    }
    return at(node) * static_cast<std::size_t>(dimension_) + static_cast<std::size_t>(axis);
}

bool BoxTree::has_value(Node node) const { return !std::isnan(value_[at(node)]); }

double BoxTree::value(Node node) const {
    if (!has_value(node)) {
        refuse(named(node) + " has no value yet");
    }
    return value_[at(node)];
}

void BoxTree::centre(Node node, double* out) const {
    for (std::int64_t axis = 0; axis < dimension_; ++axis) {
        const std::size_t k = at(node, axis);
        out[axis] = static_cast<double>(2 * index_[k] + 1) / static_cast<double>(2 * powers_[exponent_[k]]);
    }
}

void BoxTree::lower(Node node, double* out) const {
    for (std::int64_t axis = 0; axis < dimension_; ++axis) {
        const std::size_t k = at(node, axis);
        out[axis] = static_cast<double>(index_[k]) / static_cast<double>(powers_[exponent_[k]]);
    }
}

void BoxTree::upper(Node node, double* out) const {
    for (std::int64_t axis = 0; axis < dimension_; ++axis) {
        const std::size_t k = at(node, axis);
        out[axis] = static_cast<double>(index_[k] + 1) / static_cast<double>(powers_[exponent_[k]]);
    }
}

void BoxTree::exponents(Node node, std::int64_t* out) const {
    for (std::int64_t axis = 0; axis < dimension_; ++axis) {
        out[axis] = exponent_[at(node, axis)];
    }
}

bool BoxTree::is_splittable(Node node, std::int64_t axis) const {
    return exponent_[at(node, axis)] + std::size_t{1} < powers_.size();
}

std::int64_t BoxTree::longest_axis(Node node, const bool* allowed) const {
    std::int64_t longest = -1;
    for (std::int64_t axis = 0; axis < dimension_; ++axis) {
        if (allowed[axis] && is_splittable(node, axis) &&
            (longest < 0 || exponent_[at(node, axis)] < exponent_[at(node, longest)])) {
            longest = axis;
        }
    }
    return longest;
}

BoxTree::Node BoxTree::best(std::int64_t depth) const {
    if (depth < 0 || depth > deepest()) {
        return -1;
    }
    const auto& leaves = open_[static_cast<std::size_t>(depth)];
    return leaves.empty() ? -1 : leaves.begin()->second;
}

BoxTree::Node BoxTree::append(Node parent, std::int64_t depth, std::int64_t slot) {
    const Node node = size();
    parent_.push_back(parent);
    first_child_.push_back(-1);
    depth_.push_back(static_cast<std::int32_t>(depth));
    slot_.push_back(static_cast<std::int32_t>(slot));
    state_.push_back(State::pending);
    value_.push_back(std::numeric_limits<double>::quiet_NaN());
    // The parent's box, copied by position: the arrays may move while they grow.
    for (std::int64_t axis = 0; axis < dimension_; ++axis) {
        index_.push_back(parent < 0 ? 0 : index_[at(parent, axis)]);
        exponent_.push_back(parent < 0 ? std::uint8_t{0} : exponent_[at(parent, axis)]);
    }
    if (depth > deepest()) {
        open_.emplace_back();
    }
    return node;
}

BoxTree::Node BoxTree::split(Node node, std::int64_t axis) {
    if (!is_leaf(node)) {
        refuse(named(node) + " is split already");
    }
    if (!is_splittable(node, axis)) {
        refuse(named(node) + " is too small along axis " + std::to_string(axis) + " to be split exactly");
    }
    close(node);
    const Node first = size();
    for (std::int64_t slot = 0; slot < base_; ++slot) {
        const Node child = append(node, depth(node) + 1, slot);
        const std::size_t k = at(child, axis);
        index_[k] = index_[k] * base_ + slot;
        ++exponent_[k];
        assert(index_[k] < powers_[exponent_[k]]);
    }
    first_child_[at(node)] = first;
    assert(size() == first + base_);
    return first;
}

void BoxTree::set_value(Node node, double value) {
    if (std::isnan(value)) {
        refuse("the value of " + named(node) + " must not be NaN; a failure is +inf");
    }
    if (!is_leaf(node)) {
        refuse(named(node) + " is split already");
    }
    if (has_value(node)) {
        refuse(named(node) + " has a value already");
    }
    value_[at(node)] = value;
    if (state_[at(node)] == State::pending) {
        state_[at(node)] = State::open;
        open_[static_cast<std::size_t>(depth(node))].emplace(value, node);
    }
}

void BoxTree::close(Node node) {
    if (state_[at(node)] == State::open) {
        open_[static_cast<std::size_t>(depth(node))].erase({value_[at(node)], node});
    }
    state_[at(node)] = State::closed;
}

}  // namespace fractopt
