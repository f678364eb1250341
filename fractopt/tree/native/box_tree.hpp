// The tree of boxes behind SOO and its relatives: nodes as arrays, no object per node.
//
// A split makes K equal children along one axis. The middle child (slot K / 2, the heir) takes over its
// parent's row of integers, so there is one row a leaf and none an inner node; an inner node's box is
// found again from its heirs' (i -> i / K, e -> e - 1 for each split). Ids rise in order of creation and
// siblings are contiguous, so that slot and parent follow from the id.
//
// d = dimension, n = number of nodes. Queries are const; errors are std exceptions, which the binding
// turns into Python's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "axes.hpp"
#include "best_first.hpp"
#include "box_store.hpp"
#include "chunked.hpp"

namespace fractopt {

class BoxTree {
public:
    using Node = std::int64_t;

    // The root box [0, 1]^d, node 0. Throws std::invalid_argument for d < 1 or a base outside [2, 1024].
    BoxTree(std::int64_t dimension, std::int64_t base);

    std::int64_t dimension() const { return store_.dimension(); }
    std::int64_t base() const { return store_.base(); }
    std::int64_t size() const { return static_cast<std::int64_t>(row_.size()); }
    std::int64_t deepest() const { return static_cast<std::int64_t>(open_.size()) - 1; }

    Node parent(Node node) const { return at(node) == 0 ? -1 : parent_[block(node)]; }
    std::int64_t depth(Node node) const { return at(node) == 0 ? 0 : depth_[block(node)]; }
    // Position among the siblings, 0 .. K-1 along the axis that was split; 0 for the root.
    std::int64_t slot(Node node) const { return at(node) == 0 ? 0 : (node - 1) % base(); }
    // The first of K contiguous children, or -1 for a leaf.
    Node first_child(Node node) const { return first_child_[at(node)]; }
    bool is_leaf(Node node) const { return first_child(node) < 0; }
    // The leaf that has the node's box by the chain of heirs; for odd K it has the node's centre.
    Node heir(Node node) const;
    // The leaf that holds the point (d,) of the cube; of two that share a face the lower one. O(depth).
    Node locate(const double* point) const;
    bool has_value(Node node) const;
    // Throws std::invalid_argument where no value was set.
    double value(Node node) const;

    // Each writes d numbers.
    void centre(Node node, double* out) const;
    void lower(Node node, double* out) const;
    void upper(Node node, double* out) const;
    void exponents(Node node, std::int64_t* out) const;

    // Whether the children along `axis` would still be exact: K^(e+1) < 2^53.
    bool is_splittable(Node node, std::int64_t axis) const;

    // The longest side (smallest exponent; ties: lowest axis) among the axes with allowed[axis],
    // (d,), that are splittable; -1 if there is none.
    std::int64_t longest_axis(Node node, const bool* allowed) const;

    // The same for a leaf, among the axes along which it holds more than one value.
    std::int64_t longest_axis(Node leaf, const Axes& axes) const;

    // The open leaf of least value at `depth` (ties: the oldest), or -1. O(1).
    Node best(std::int64_t depth) const;

    // The `count` best open leaves at `depth`, best first, appended to `out`. O(count log count).
    void best(std::int64_t depth, std::int64_t count, std::vector<Node>& out) const;

    // Splits a leaf into K equal boxes along `axis`; the leaf leaves the selection. Returns the first
    // child. Throws std::invalid_argument for an inner node, an axis out of range, or an axis that is not
    // splittable.
    Node split(Node node, std::int64_t axis);

    // Gives a leaf its value, once, and opens it for selection. O(log n). Infinities are values, NaN
    // is not. Throws std::invalid_argument for NaN, an inner node or a second value.
    void set_value(Node node, double value);

    // Takes the value of an open leaf back: it has none again, and is not to be selected, until it is given
    // another. Throws std::invalid_argument for a leaf that is not open.
    void withdraw(Node node);

    // Takes a leaf out of the selection for good, now or when its value comes: nothing to split.
    void close(Node node);

private:
    enum class State : std::uint8_t { pending, open, closed };

    std::size_t at(Node node) const;  // checked index
    bool holds(const Entry& entry) const;
    void purge(Node node);  // after a leaf left the selection of its depth
    std::size_t checked_axis(std::int64_t axis) const;
    std::size_t block(Node node) const { return static_cast<std::size_t>((node - 1) / base()); }
    void add_node(std::size_t row);
    // The node's own box, whoever has its row by now.
    void box(Node node, std::int64_t* index, std::uint8_t* exponent) const;

    BoxStore store_;                       // one row a leaf
    Chunked<std::int32_t> row_;            // (n,)
    Chunked<std::int32_t> first_child_;    // (n,), -1 for a leaf
    Chunked<State> state_;                 // (n,)
    Chunked<double> value_;                // (n,), NaN until set
    Chunked<std::int32_t> parent_;         // (splits,)
    Chunked<std::int32_t> depth_;          // (splits,) of the children
    Chunked<std::int32_t> axis_;           // (splits,)

    std::vector<BestFirst> open_;  // per depth
};

}  // namespace fractopt
