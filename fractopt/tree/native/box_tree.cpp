#include "box_tree.hpp"

#include <cassert>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

namespace fractopt {

namespace {

constexpr std::int64_t most_nodes = std::numeric_limits<std::int32_t>::max();

[[noreturn]] void refuse(const std::string& message) { throw std::invalid_argument(message); }

std::string named(BoxTree::Node node) { return "node " + std::to_string(node); }

}  // namespace

BoxTree::BoxTree(std::int64_t dimension, std::int64_t base) : store_(dimension, base) {
    add_node(store_.add_root());
    open_.emplace_back();
}

void BoxTree::add_node(std::size_t row) {
    row_.add(static_cast<std::int32_t>(row));
    first_child_.add(-1);
    state_.add(State::pending);
    value_.add(std::numeric_limits<double>::quiet_NaN());
}

std::size_t BoxTree::at(Node node) const {
    if (node < 0 || node >= size()) {
        throw std::out_of_range(named(node) + " is not in this tree of " + std::to_string(size()) + " nodes");
    }
    return static_cast<std::size_t>(node);
}

std::size_t BoxTree::checked_axis(std::int64_t axis) const {
    if (axis < 0 || axis >= dimension()) {
        refuse("axis " + std::to_string(axis) + " is outside 0.." + std::to_string(dimension() - 1));
    }
    return static_cast<std::size_t>(axis);
}

BoxTree::Node BoxTree::heir(Node node) const {
    while (!is_leaf(node)) {
        node = first_child(node) + base() / 2;
    }
    return node;
}

bool BoxTree::has_value(Node node) const { return !std::isnan(value_[at(node)]); }

double BoxTree::value(Node node) const {
    if (!has_value(node)) {
        refuse(named(node) + " has no value yet");
    }
    return value_[at(node)];
}

BoxTree::Node BoxTree::locate(const double* point) const {
    std::vector<std::int64_t> index(static_cast<std::size_t>(dimension()), 0);
    std::vector<std::uint8_t> exponent(static_cast<std::size_t>(dimension()), 0);
    Node node = 0;
    while (!is_leaf(node)) {
        const Node first = first_child(node);
        const auto axis = static_cast<std::size_t>(axis_[block(first)]);
        index[axis] *= base();
        ++exponent[axis];
        std::int64_t slot = 0;
        while (slot < base() - 1 && point[axis] > store_.upper(index[axis], exponent[axis])) {
            ++slot;
            ++index[axis];
        }
        node = first + slot;
    }
    return node;
}

void BoxTree::box(Node node, std::int64_t* index, std::uint8_t* exponent) const {
    const auto row = static_cast<std::size_t>(row_[at(node)]);
    const auto d = static_cast<std::size_t>(dimension());
    std::copy_n(store_.index(row), d, index);
    std::copy_n(store_.exponent(row), d, exponent);
    // Undone in any order: splits along different axes do not meet, those along one are divisions by K.
    for (; !is_leaf(node); node = first_child(node) + base() / 2) {
        const auto axis = static_cast<std::size_t>(axis_[block(first_child(node))]);
        index[axis] /= base();
        --exponent[axis];
    }
}

void BoxTree::centre(Node node, double* out) const {
    if (is_leaf(node)) {
        store_.centre(static_cast<std::size_t>(row_[at(node)]), out);
        return;
    }
    const auto d = static_cast<std::size_t>(dimension());
    std::vector<std::int64_t> index(d);
    std::vector<std::uint8_t> exponent(d);
    box(node, index.data(), exponent.data());
    for (std::size_t axis = 0; axis < d; ++axis) {
        out[axis] = store_.centre(index[axis], exponent[axis]);
    }
}

void BoxTree::lower(Node node, double* out) const {
    const auto d = static_cast<std::size_t>(dimension());
    std::vector<std::int64_t> index(d);
    std::vector<std::uint8_t> exponent(d);
    box(node, index.data(), exponent.data());
    for (std::size_t axis = 0; axis < d; ++axis) {
        out[axis] = store_.lower(index[axis], exponent[axis]);
    }
}

void BoxTree::upper(Node node, double* out) const {
    const auto d = static_cast<std::size_t>(dimension());
    std::vector<std::int64_t> index(d);
    std::vector<std::uint8_t> exponent(d);
    box(node, index.data(), exponent.data());
    for (std::size_t axis = 0; axis < d; ++axis) {
        out[axis] = store_.upper(index[axis], exponent[axis]);
    }
}

void BoxTree::exponents(Node node, std::int64_t* out) const {
    const auto d = static_cast<std::size_t>(dimension());
    std::vector<std::int64_t> index(d);
    std::vector<std::uint8_t> exponent(d);
    box(node, index.data(), exponent.data());
    std::copy(exponent.begin(), exponent.end(), out);
}

bool BoxTree::is_splittable(Node node, std::int64_t axis) const {
    const std::size_t k = checked_axis(axis);
    std::vector<std::int64_t> index(static_cast<std::size_t>(dimension()));
    std::vector<std::uint8_t> exponent(static_cast<std::size_t>(dimension()));
    box(node, index.data(), exponent.data());
    return store_.is_splittable(exponent[k]);
}

std::int64_t BoxTree::longest_axis(Node node, const bool* allowed) const {
    std::vector<std::int64_t> exponent(static_cast<std::size_t>(dimension()));
    exponents(node, exponent.data());
    std::int64_t longest = -1;
    for (std::int64_t axis = 0; axis < dimension(); ++axis) {
        const auto e = exponent[static_cast<std::size_t>(axis)];
        if (allowed[axis] && store_.is_splittable(static_cast<std::uint8_t>(e)) &&
            (longest < 0 || e < exponent[static_cast<std::size_t>(longest)])) {
            longest = axis;
        }
    }
    return longest;
}

std::int64_t BoxTree::longest_axis(Node leaf, const Axes& axes) const {
    assert(is_leaf(leaf));
    return store_.longest_axis(axes, static_cast<std::size_t>(row_[at(leaf)]));
}

BoxTree::Node BoxTree::best(std::int64_t depth) const {
    if (depth < 0 || depth > deepest()) {
        return -1;
    }
    const BestFirst& leaves = open_[static_cast<std::size_t>(depth)];
    return leaves.empty() ? -1 : leaves.top().node;
}

void BoxTree::best(std::int64_t depth, std::int64_t count, std::vector<Node>& out) const {
    if (depth < 0 || depth > deepest() || count < 1) {
        return;
    }
    open_[static_cast<std::size_t>(depth)].each(
        [this](const Entry& entry) { return holds(entry); },
        [&](const Entry& entry) {
            out.push_back(entry.node);
            return --count > 0;
        });
}

BoxTree::Node BoxTree::split(Node node, std::int64_t axis) {
    if (!is_leaf(node)) {
        refuse(named(node) + " is split already");
    }
    const std::size_t k = checked_axis(axis);
    const auto row = static_cast<std::size_t>(row_[at(node)]);
    if (!store_.is_splittable(store_.exponent(row)[k])) {
        refuse(named(node) + " is too small along axis " + std::to_string(axis) + " to be split exactly");
    }
    if (size() > most_nodes - base()) {
        throw std::length_error("a tree holds at most 2^31 nodes");
    }
    const std::int64_t child_depth = depth(node) + 1;
    close(node);
    const Node first = size();
    parent_.add(static_cast<std::int32_t>(node));
    depth_.add(static_cast<std::int32_t>(child_depth));
    axis_.add(static_cast<std::int32_t>(axis));
    const std::int64_t middle = base() / 2;
    for (std::int64_t slot = 0; slot < base(); ++slot) {
        const std::size_t part = slot == middle ? row : store_.add_copy(row);
        if (slot != middle) {
            store_.shrink(part, k, slot);
        }
        add_node(part);
    }
    store_.shrink(row, k, middle);  // last: the others are copies of the whole
    first_child_[at(node)] = static_cast<std::int32_t>(first);
    if (child_depth > deepest()) {
        open_.emplace_back();
    }
    assert(size() == first + base());
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
        open_[static_cast<std::size_t>(depth(node))].push(value, static_cast<std::int32_t>(node));
    }
}

void BoxTree::close(Node node) {
    const bool was_open = state_[at(node)] == State::open;
    state_[at(node)] = State::closed;
    if (was_open) {
        purge(node);
    }
}

void BoxTree::withdraw(Node node) {
    if (state_[at(node)] != State::open) {
        refuse(named(node) + " has no value that could be taken back");
    }
    state_[at(node)] = State::pending;
    value_[at(node)] = std::numeric_limits<double>::quiet_NaN();
    purge(node);
}

bool BoxTree::holds(const Entry& entry) const {
    const auto node = static_cast<std::size_t>(entry.node);
    return state_[node] == State::open && value_[node] == entry.value;  // else of a value taken back
}

void BoxTree::purge(Node node) {
    open_[static_cast<std::size_t>(depth(node))].purge([this](const Entry& entry) { return holds(entry); });
}

}  // namespace fractopt
