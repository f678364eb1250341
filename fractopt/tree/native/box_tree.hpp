// The tree of boxes behind SOO and its relatives: nodes as arrays, no object per node.
//
// A box of the unit cube is held by two integers per axis, its index i and its exponent e:
//     [i / K^e, (i + 1) / K^e],   centre (2 i + 1) / (2 K^e),
// each computed by one correctly rounded division of two integers below 2^53. So the edges that
// siblings share are equal to the last bit, and for odd K the middle child has exactly its
// parent's centre: both are the same rational number, rounded once.
//
// d = dimension, n = number of nodes. Queries are const; errors are std exceptions, which the
// binding turns into Python's.
#pragma once

#include <cstdint>
#include <set>
#include <utility>
#include <vector>

namespace fractopt {

class BoxTree {
public:
    using Node = std::int64_t;

    // The root box [0, 1]^d, node 0. Throws std::invalid_argument for d < 1 or a base outside [2, 1024].
    BoxTree(std::int64_t dimension, std::int64_t base);

    std::int64_t dimension() const { return dimension_; }
    std::int64_t base() const { return base_; }
    std::int64_t size() const { return static_cast<std::int64_t>(parent_.size()); }
    std::int64_t deepest() const { return static_cast<std::int64_t>(open_.size()) - 1; }

    Node parent(Node node) const { return parent_[at(node)]; }
    std::int64_t depth(Node node) const { return depth_[at(node)]; }
    // Position among the siblings, 0 .. K-1 along the axis that was split; 0 for the root.
    std::int64_t slot(Node node) const { return slot_[at(node)]; }
    // The first of K contiguous children, or -1 for a leaf.
    Node first_child(Node node) const { return first_child_[at(node)]; }
    bool is_leaf(Node node) const { return first_child_[at(node)] < 0; }
    bool has_value(Node node) const;
    // Throws std::invalid_argument where no value was set.
    double value(Node node) const;

    // Each writes d numbers.
    void centre(Node node, double* out) const;
    void lower(Node node, double* out) const;
    void upper(Node node, double* out) const;
    void exponents(Node node, std::int64_t* out) const;

    // Whether the children along `axis` would still be exact: 2 K^(e+1) < 2^53.
    bool is_splittable(Node node, std::int64_t axis) const;

    // The longest side (smallest exponent; ties: lowest axis) among the axes with allowed[axis],
    // (d,), that are splittable; -1 if there is none.
    std::int64_t longest_axis(Node node, const bool* allowed) const;

    // The open leaf of least value at `depth` (ties: the oldest), or -1. O(1).
    Node best(std::int64_t depth) const;

    // Splits a leaf into K equal boxes along `axis`; the leaf leaves the selection. Returns the first
    // child; ids rise in order of creation. Throws std::invalid_argument for an inner node, an axis out
    // of range, or an axis that is not splittable.
    Node split(Node node, std::int64_t axis);

    // Gives a leaf its value, once, and opens it for selection. O(log n). Infinities are values, NaN
    // is not. Throws std::invalid_argument for NaN, an inner node or a second value.
    void set_value(Node node, double value);

    // Takes a leaf out of the selection for good, now or when its value comes: nothing to split.
    void close(Node node);

private:
    enum class State : std::uint8_t { pending, open, closed };

    std::size_t at(Node node) const;                                   // checked index
    std::size_t at(Node node, std::int64_t axis) const;                // into index_ and exponent_
    Node append(Node parent, std::int64_t depth, std::int64_t slot);

    std::int64_t dimension_;
    std::int64_t base_;
    std::vector<std::int64_t> powers_;  // K^0, K^1, ...: 2 * powers_.back() < 2^53

    std::vector<Node> parent_;               // (n,), -1 for the root
    std::vector<Node> first_child_;          // (n,)
    std::vector<std::int32_t> depth_;        // (n,)
    std::vector<std::int32_t> slot_;         // (n,)
    std::vector<State> state_;               // (n,)
    std::vector<double> value_;              // (n,), NaN until set
    std::vector<std::int64_t> index_;        // (n, d)
    std::vector<std::uint8_t> exponent_;     // (n, d)

    // Per depth the open leaves by (value, id): equal values come out oldest first.
    std::vector<std::set<std::pair<double, Node>>> open_;
};

}  // namespace fractopt
