// The only file that knows Python: the C++ core as fractopt.tree._native.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <map>
#include <string>

#include "block.hpp"
#include "box_tree.hpp"
#include "direct.hpp"
#include "fast_path.hpp"
#include "fda.hpp"
#include "ils.hpp"
#include "sequool.hpp"
#include "soo.hpp"

namespace nb = nanobind;
using namespace fractopt;
using Node = BoxTree::Node;

namespace {

template <typename T> using Array = nb::ndarray<nb::numpy, T>;
template <typename T> using Column = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Nodes = Column<std::int64_t>;
using Numbers = Column<double>;
using Points = nb::ndarray<const double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

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

template <typename T> Array<T> make_array(const std::vector<T>& numbers, std::initializer_list<std::size_t> shape) {
    T* data = nullptr;
    auto array = make_array<T>(shape, data);
    std::copy(numbers.begin(), numbers.end(), data);
    return array;
}

template <typename T> std::vector<T> copied(const Column<T>& column) {
    return {column.data(), column.data() + column.shape(0)};
}

// --- queries of trees: one node -> (d,), nodes (m,) -> (m, d)

template <typename Tree, typename T, void (Tree::*query)(Node, T*) const>
Array<T> of_node(const Tree& tree, Node node) {
    T* data = nullptr;
    auto array = make_array<T>({static_cast<std::size_t>(tree.dimension())}, data);
    (tree.*query)(node, data);
    return array;
}

template <typename Tree, typename T, void (Tree::*query)(Node, T*) const>
Array<T> of_nodes(const Tree& tree, const Nodes& nodes) {
    const auto d = static_cast<std::size_t>(tree.dimension());
    T* data = nullptr;
    auto array = make_array<T>({nodes.shape(0), d}, data);
    for (std::size_t row = 0; row < nodes.shape(0); ++row) {
        (tree.*query)(nodes(row), data + row * d);
    }
    return array;
}

template <typename Tree, bool (Tree::*is_wanted)(Node) const> Array<std::int64_t> nodes_that(const Tree& tree) {
    std::vector<std::int64_t> found;
    for (Node node = 0; node < tree.size(); ++node) {
        if ((tree.*is_wanted)(node)) {
            found.push_back(node);
        }
    }
    return make_array(found, {found.size()});
}

Array<std::int64_t> locate(const BoxTree& tree, const Points& points) {
    if (static_cast<std::int64_t>(points.shape(1)) != tree.dimension()) {
        throw nb::value_error("`points` must have one column an axis");
    }
    std::int64_t* data = nullptr;
    auto array = make_array<std::int64_t>({points.shape(0)}, data);
    for (std::size_t row = 0; row < points.shape(0); ++row) {
        data[row] = tree.locate(points.data() + row * points.shape(1));
    }
    return array;
}

std::int64_t longest_axis(const BoxTree& tree, Node node, const Column<bool>& allowed) {
    if (static_cast<std::int64_t>(allowed.shape(0)) != tree.dimension()) {
        throw nb::value_error("`allowed` must have one entry an axis");
    }
    return tree.longest_axis(node, allowed.data());
}

// --- searches

nb::object decide(const Search& search, std::int64_t n) {
    Event event;
    search.decide(n, event);
    const std::size_t count = event.node.size();
    switch (event.type) {
        case Event::Type::asked:
            return nb::make_tuple("asked", make_array(event.unit, {count, search.dimension()}),
                                  make_array(event.node, {count}), make_array(event.slot, {count}));
        case Event::Type::expanded:
            return nb::make_tuple("expanded", make_array(event.node, {count}), make_array(event.slot, {count}),
                                  event.sweep, event.depth, event.bound);
        case Event::Type::selected:
            return nb::make_tuple("selected", make_array(event.node, {count}), event.sweep);
        case Event::Type::scored:
            return nb::make_tuple("scored", make_array(event.node, {count}), make_array(event.value, {count}));
        default:
            return nb::none();
    }
}

void check_lengths(std::initializer_list<std::size_t> lengths) {
    for (const std::size_t length : lengths) {
        if (length != *lengths.begin()) {
            throw nb::value_error("the arrays of an event must have one length");
        }
    }
}

void apply_asked(Search& search, const Nodes& ids, const Points& unit, const Nodes& node, const Nodes& slot) {
    check_lengths({ids.shape(0), unit.shape(0), node.shape(0), slot.shape(0)});
    if (unit.shape(1) != search.dimension()) {
        throw nb::value_error("the points of an event must have the search's dimension");
    }
    Event event;
    event.type = Event::Type::asked;
    event.id = copied(ids);
    event.node = copied(node);
    event.slot = copied(slot);
    event.unit.assign(unit.data(), unit.data() + unit.size());
    search.apply(event);
}

void apply_told(Search& search, const Nodes& ids, const Numbers& loss) {
    check_lengths({ids.shape(0), loss.shape(0)});
    Event event;
    event.type = Event::Type::told;
    event.id = copied(ids);
    event.value = copied(loss);
    search.apply(event);
}

void apply_expanded(Search& search, const Nodes& node, const Nodes& axis, std::int64_t sweep, std::int64_t depth,
                    double bound) {
    check_lengths({node.shape(0), axis.shape(0)});
    Event event;
    event.type = Event::Type::expanded;
    event.node = copied(node);
    event.slot = copied(axis);
    event.sweep = sweep;
    event.depth = depth;
    event.bound = bound;
    search.apply(event);
}

void apply_selected(Search& search, const Nodes& node, std::int64_t sweep) {
    Event event;
    event.type = Event::Type::selected;
    event.node = copied(node);
    event.sweep = sweep;
    search.apply(event);
}

void apply_scored(Search& search, const Nodes& node, const Numbers& value) {
    check_lengths({node.shape(0), value.shape(0)});
    Event event;
    event.type = Event::Type::scored;
    event.node = copied(node);
    event.value = copied(value);
    search.apply(event);
}

void apply_block(Search& search, std::int64_t first, const Points& unit, const Nodes& node, const Nodes& slot,
                 const Numbers& loss, const Nodes& kind, const Nodes& size, const Nodes& sweep, const Nodes& depth,
                 const Numbers& bound, const Nodes& region, const Nodes& axis, const Numbers& score) {
    check_lengths({unit.shape(0), node.shape(0), slot.shape(0), loss.shape(0)});
    check_lengths({kind.shape(0), size.shape(0), sweep.shape(0), depth.shape(0), bound.shape(0)});
    check_lengths({region.shape(0), axis.shape(0), score.shape(0)});
    if (unit.shape(1) != search.dimension()) {
        throw nb::value_error("the points of an event must have the search's dimension");
    }
    const Block block{first,          {unit.data(), unit.data() + unit.size()},
                      copied(node),   copied(slot),
                      copied(loss),   copied(kind),
                      copied(size),   copied(sweep),
                      copied(depth),  copied(bound),
                      copied(region), copied(axis),
                      copied(score)};
    block.apply(search);
}

nb::tuple columns(const Block& block) {
    const std::size_t n = block.node.size(), m = block.kind.size(), k = block.region.size();
    const std::size_t d = n ? block.unit.size() / n : 0;
    return nb::make_tuple(block.first, make_array(block.unit, {n, d}), make_array(block.node, {n}),
                          make_array(block.slot, {n}), make_array(block.loss, {n}), make_array(block.kind, {m}),
                          make_array(block.size, {m}), make_array(block.sweep, {m}), make_array(block.depth, {m}),
                          make_array(block.bound, {m}), make_array(block.region, {k}), make_array(block.axis, {k}),
                          make_array(block.score, {k}));
}

nb::tuple run_search(Search& search, const nb::callable& function, std::int64_t budget, std::int64_t most,
                     std::int64_t first_id, const std::vector<double>& low, const std::vector<double>& high,
                     const std::vector<bool>& log, Block* block) {
    const Scale scale(low, high, log);
    const std::size_t d = search.dimension();
    if (scale.dimension() != d || most < 1) {
        throw nb::value_error("expected bounds of the search's dimension, and at least one point at once");
    }
    const auto evaluate = [&](const double* unit, std::size_t points, double* loss) {
        double* native = nullptr;
        auto x = make_array<double>({points, d}, native);
        scale.decode(unit, points, native);
        const nb::object answer = function(x);
        Numbers values;
        if (!nb::try_cast(answer, values)) {
            values = nb::cast<Numbers>(nb::module_::import_("numpy").attr("ascontiguousarray")(
                answer, nb::arg("dtype") = nb::module_::import_("numpy").attr("float64")));
        }
        if (values.shape(0) != points) {
            throw nb::value_error(("the function was given " + std::to_string(points) + " points and returned " +
                                   std::to_string(values.shape(0)) + " values")
                                      .c_str());
        }
        std::copy_n(values.data(), points, loss);
    };
    if (block) {
        *block = Block{};
        block->first = first_id;
    }
    const Best best = run(search, budget, most, first_id, block, evaluate);
    nb::object unit = nb::none();
    if (!best.unit.empty()) {
        unit = nb::cast(make_array(best.unit, {d}));
    }
    return nb::make_tuple(best.evaluations, best.value, unit, best.exhausted);
}

template <typename T> T named(const std::map<std::string, T>& names, const char* what, const std::string& name) {
    const auto found = names.find(name);
    if (found == names.end()) {
        throw nb::value_error((std::string(what) + ": unknown name '" + name + "'").c_str());
    }
    return found->second;
}

FdaSettings fda_settings(const std::string& geometry, const std::string& order, const std::string& exploration,
                         const std::string& exploitation, const std::string& scoring,
                         const std::string& siblings, double inflation, double radius, std::int64_t depth, double least_step) {
    FdaSettings settings;
    settings.geometry = named<Geometry::Kind>(
        {{"sphere", Geometry::Kind::sphere}, {"box", Geometry::Kind::box}}, "geometry", geometry);
    settings.order = named<Order>({{"move_up", Order::move_up},
                                   {"best_first", Order::best_first},
                                   {"breadth_first", Order::breadth_first}},
                                  "tree_search", order);
    settings.exploration = named<Exploration>({{"phs", Exploration::phs}, {"centre", Exploration::centre}},
                                              "exploration", exploration);
    settings.exploits = named<bool>({{"ils", true}, {"none", false}}, "exploitation", exploitation);
    settings.scoring = named<Scoring>({{"ratio", Scoring::ratio},
                                       {"improvement", Scoring::improvement},
                                       {"min", Scoring::least},
                                       {"mean", Scoring::mean},
                                       {"median", Scoring::median}},
                                      "scoring", scoring);
    settings.in_turn = named<bool>({{"in_turn", true}, {"together", false}}, "siblings", siblings);
    settings.inflation = inflation;
    settings.radius = radius;
    settings.depth = depth;
    settings.least_step = least_step;
    return settings;
}

using Edges = std::vector<std::vector<double>>;

// start(k) -> (d,)
IlsSearch::Start ils_start(const nb::callable& start, std::size_t d) {
    return [start, d](std::int64_t k, double* out) {
        const auto point = nb::cast<Numbers>(start(k));
        if (point.shape(0) != d) {
            throw nb::value_error("a start must have the search's dimension");
        }
        std::copy_n(point.data(), d, out);
    };
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
        .def("best", nb::overload_cast<std::int64_t>(&BoxTree::best, nb::const_), nb::arg("depth"))
        .def("centre", &of_node<BoxTree, double, &BoxTree::centre>, nb::arg("node"))
        .def("lower", &of_node<BoxTree, double, &BoxTree::lower>, nb::arg("node"))
        .def("upper", &of_node<BoxTree, double, &BoxTree::upper>, nb::arg("node"))
        .def("exponents", &of_node<BoxTree, std::int64_t, &BoxTree::exponents>, nb::arg("node"))
        .def("centres", &of_nodes<BoxTree, double, &BoxTree::centre>, nb::arg("nodes"))
        .def("lowers", &of_nodes<BoxTree, double, &BoxTree::lower>, nb::arg("nodes"))
        .def("uppers", &of_nodes<BoxTree, double, &BoxTree::upper>, nb::arg("nodes"))
        .def("leaves", &nodes_that<BoxTree, &BoxTree::is_leaf>)
        .def("locate", &locate, nb::arg("points"))
        .def("split", &BoxTree::split, nb::arg("node"), nb::arg("axis"))
        .def("set_value", &BoxTree::set_value, nb::arg("node"), nb::arg("value"))
        .def("close", &BoxTree::close, nb::arg("node"));

    nb::class_<Block>(m, "EventBlock")
        .def(nb::init<>())
        .def("__len__", [](const Block& block) { return block.kind.size(); })
        .def("columns", &columns);

    nb::class_<Search>(m, "Search")
        .def_prop_ro("dimension", &Search::dimension)
        .def("set_budget", &Search::set_budget, nb::arg("evaluations"))
        .def("decide", &decide, nb::arg("n"))
        .def("apply_asked", &apply_asked, nb::arg("ids"), nb::arg("unit"), nb::arg("node"), nb::arg("slot"))
        .def("apply_told", &apply_told, nb::arg("ids"), nb::arg("loss"))
        .def("apply_expanded", &apply_expanded, nb::arg("node"), nb::arg("axis"), nb::arg("sweep"),
             nb::arg("depth"), nb::arg("bound"))
        .def("apply_selected", &apply_selected, nb::arg("node"), nb::arg("sweep"))
        .def("apply_scored", &apply_scored, nb::arg("node"), nb::arg("value"))
        .def("apply_block", &apply_block, nb::arg("first"), nb::arg("unit"), nb::arg("node"), nb::arg("slot"),
             nb::arg("loss"), nb::arg("kind"), nb::arg("size"), nb::arg("sweep"), nb::arg("depth"),
             nb::arg("bound"), nb::arg("region"), nb::arg("axis"), nb::arg("score"))
        .def("run", &run_search, nb::arg("function"), nb::arg("budget"), nb::arg("most"), nb::arg("first_id"),
             nb::arg("low"), nb::arg("high"), nb::arg("log"), nb::arg("block").none() = nb::none());

    nb::class_<SectionSearch, Search>(m, "SectionSearch")
        .def_prop_ro("tree", &SectionSearch::tree, nb::rv_policy::reference_internal)
        .def_prop_ro("expansions", &SectionSearch::expansions);

    nb::class_<SooSearch, SectionSearch>(m, "SooSearch")
        .def(
            "__init__",
            [](SooSearch* self, const Edges& edges, std::int64_t children, const std::string& h_max) {
                const auto rule = named<SooSearch::Depth>(
                    {{"sqrt", SooSearch::Depth::sqrt}, {"log", SooSearch::Depth::log}}, "h_max", h_max);
                new (self) SooSearch(Axes(edges), children, rule);
            },
            nb::arg("edges"), nb::arg("children"), nb::arg("h_max"));

    m.def("sequool_depth", &sequool_depth, nb::arg("openings"));
    nb::class_<SequoolSearch, SectionSearch>(m, "SequoolSearch")
        .def(
            "__init__",
            [](SequoolSearch* self, const Edges& edges, std::int64_t children, std::int64_t openings, bool waits) {
                new (self) SequoolSearch(Axes(edges), children, openings, waits);
            },
            nb::arg("edges"), nb::arg("children"), nb::arg("openings"), nb::arg("waits"))
        .def_prop_ro("round", &SequoolSearch::round)
        .def_prop_ro("h_max", &SequoolSearch::h_max);

    nb::class_<DirectSearch, Search>(m, "DirectSearch")
        .def(
            "__init__",
            [](DirectSearch* self, const Edges& edges, bool local, double epsilon) {
                new (self) DirectSearch(Axes(edges), local, epsilon);
            },
            nb::arg("edges"), nb::arg("local"), nb::arg("epsilon"))
        .def("__len__", &DirectSearch::size)
        .def_prop_ro("iteration", &DirectSearch::iteration)
        .def("centre", &of_node<DirectSearch, double, &DirectSearch::centre>, nb::arg("box"))
        .def("lower", &of_node<DirectSearch, double, &DirectSearch::lower>, nb::arg("box"))
        .def("upper", &of_node<DirectSearch, double, &DirectSearch::upper>, nb::arg("box"))
        .def("exponents", &of_node<DirectSearch, std::int64_t, &DirectSearch::exponents>, nb::arg("box"))
        .def("lowers", &of_nodes<DirectSearch, double, &DirectSearch::lower>, nb::arg("boxes"))
        .def("uppers", &of_nodes<DirectSearch, double, &DirectSearch::upper>, nb::arg("boxes"))
        .def("leaves", &nodes_that<DirectSearch, &DirectSearch::is_box>);

    nb::class_<FdaSearch, Search>(m, "FdaSearch")
        .def(
            "__init__",
            [](FdaSearch* self, const Edges& edges, const std::string& geometry, const std::string& tree_search,
               const std::string& exploration, const std::string& exploitation, const std::string& scoring,
               const std::string& siblings, double inflation, double radius, std::int64_t depth,
               double least_step) {
                new (self) FdaSearch(Axes(edges),
                                     fda_settings(geometry, tree_search, exploration, exploitation, scoring,
                                                  siblings, inflation, radius, depth, least_step));
            },
            nb::arg("edges"), nb::kw_only(), nb::arg("geometry"), nb::arg("tree_search"), nb::arg("exploration"),
            nb::arg("exploitation"), nb::arg("scoring"), nb::arg("siblings"), nb::arg("inflation"),
            nb::arg("radius"), nb::arg("depth"), nb::arg("least_step"))
        .def("__len__", &FdaSearch::size)
        .def_prop_ro("depth", &FdaSearch::depth)
        .def_prop_ro("local_searches", &FdaSearch::local_searches)
        .def("before_exploitation", &FdaSearch::before_exploitation, nb::arg("depth"))
        .def("parent", &FdaSearch::parent, nb::arg("region"))
        .def("level", &FdaSearch::level, nb::arg("region"))
        .def("radius", &FdaSearch::radius, nb::arg("level"))
        .def("score", &FdaSearch::score, nb::arg("region"))
        .def("centre", &of_node<FdaSearch, double, &FdaSearch::centre>, nb::arg("region"));

    nb::class_<IlsSearch, Search>(m, "IlsSearch")
        .def(
            "__init__",
            [](IlsSearch* self, const Edges& edges, const nb::callable& start, double step, double least_step) {
                new (self) IlsSearch(Axes(edges), ils_start(start, edges.size()), step, least_step);
            },
            nb::arg("edges"), nb::arg("start"), nb::arg("step"), nb::arg("least_step"))
        .def_prop_ro("local_searches", &IlsSearch::local_searches);
}
