// The only file that knows Python: BoxTree as fractopt.tree._native.BoxTree.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "box_tree.hpp"

namespace nb = nanobind;
using fractopt::BoxTree;
using Node = BoxTree::Node;

namespace {

template <typename T> using Array = nb::ndarray<nb::numpy, T>;
using Nodes = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Mask = nb::ndarray<const bool, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// A numpy array of the given shape that owns its memory; returns where its numbers go in `data`.
template <typename T> Array<T> make_array(std::initializer_list<std::size_t> shape, T*& data) {
    std::size_t size = 1;
    for (const std::size_t extent : shape) {
        size *= extent;
    }
    data = new T[size];
    nb::capsule owner(data, [](void* memory) noexcept { delete[] static_cast<T*>(memory); });
    return Array<T>(data, shape, owner);
}

template <typename T> using Query = void (BoxTree::*)(Node, T*) const;

// One node -> (d,).
template <typename T, Query<T> query> Array<T> of_node(const BoxTree& tree, Node node) {
    T* data = nullptr;
    auto array = make_array<T>({static_cast<std::size_t>(tree.dimension())}, data);
    (tree.*query)(node, data);
    return array;
}

// Nodes (m,) -> (m, d).
template <typename T, Query<T> query> Array<T> of_nodes(const BoxTree& tree, const Nodes& nodes) {
    T* data = nullptr;
    auto array = make_array<T>({nodes.shape(0), static_cast<std::size_t>(tree.dimension())}, data);
    for (std::size_t row = 0; row < nodes.shape(0); ++row) {
        (tree.*query)(nodes(row), data + row * static_cast<std::size_t>(tree.dimension()));
    }
    return array;
}

std::int64_t longest_axis(const BoxTree& tree, Node node, const Mask& allowed) {
    if (static_cast<std::int64_t>(allowed.shape(0)) != tree.dimension()) {
        throw nb::value_error("`allowed` must have one entry an axis");
    }
    return tree.longest_axis(node, allowed.data());
}

Array<std::int64_t> leaves(const BoxTree& tree) {
    std::size_t count = 0;
    for (Node node = 0; node < tree.size(); ++node) {
        count += tree.is_leaf(node);
    }
    std::int64_t* data = nullptr;
    auto array = make_array<std::int64_t>({count}, data);
    for (Node node = 0; node < tree.size(); ++node) {
        if (tree.is_leaf(node)) {
            *data++ = node;
        }
    }
    return array;
}

}  // namespace

NB_MODULE(_native, m) {
    m.doc() = "The C++ core of fractopt.tree.";
    nb::class_<BoxTree>(m, "BoxTree")
        .def(nb::init<std::int64_t, std::int64_t>(), nb::arg("dimension"), nb::arg("base"))
        .def_prop_ro("dimension", &BoxTree::dimension)
        .def_prop_ro("base", &BoxTree::base)
        .def_prop_ro("deepest", &BoxTree::deepest)
        .def("__len__", &BoxTree::size)
        .def("parent", &BoxTree::parent, nb::arg("node"))
        .def("depth", &BoxTree::depth, nb::arg("node"))
        .def("slot", &BoxTree::slot, nb::arg("node"))
        .def("first_child", &BoxTree::first_child, nb::arg("node"))
        .def("is_leaf", &BoxTree::is_leaf, nb::arg("node"))
        .def("has_value", &BoxTree::has_value, nb::arg("node"))
        .def("value", &BoxTree::value, nb::arg("node"))
        .def("is_splittable", &BoxTree::is_splittable, nb::arg("node"), nb::arg("axis"))
        .def("longest_axis", &longest_axis, nb::arg("node"), nb::arg("allowed"))
        .def("best", &BoxTree::best, nb::arg("depth"))
        .def("centre", &of_node<double, &BoxTree::centre>, nb::arg("node"))
        .def("lower", &of_node<double, &BoxTree::lower>, nb::arg("node"))
        .def("upper", &of_node<double, &BoxTree::upper>, nb::arg("node"))
        .def("exponents", &of_node<std::int64_t, &BoxTree::exponents>, nb::arg("node"))
        .def("centres", &of_nodes<double, &BoxTree::centre>, nb::arg("nodes"))
        .def("lowers", &of_nodes<double, &BoxTree::lower>, nb::arg("nodes"))
        .def("uppers", &of_nodes<double, &BoxTree::upper>, nb::arg("nodes"))
        .def("leaves", &leaves)
        .def("split", &BoxTree::split, nb::arg("node"), nb::arg("axis"))
        .def("set_value", &BoxTree::set_value, nb::arg("node"), nb::arg("value"))
        .def("close", &BoxTree::close, nb::arg("node"));
}
