#include "direct.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>

namespace fractopt {

namespace {

constexpr std::size_t exponents_there_are = 64;

// Values this close, relatively, are equal: mirrored points of a symmetric function differ by the rounding
// of their coordinates. (Gablonsky's code, absolutely: 1e-13.)
constexpr double same = 1e-13;

[[noreturn]] void refuse(const std::string& message) { throw std::invalid_argument(message); }

}  // namespace

DirectSearch::DirectSearch(Axes axes, bool local, double epsilon)
    : axes_(std::move(axes)),
      local_(local),
      epsilon_(epsilon),
      store_(static_cast<std::int64_t>(axes_.dimension()), 3),
      regular_(exponents_there_are * (axes_.dimension() + 1), -1),
      point_(axes_.dimension()) {
    store_.add_root();
    value_.add(infinity);  // the root's stand-in: there is nothing it could be compared with
    group_.add(-1);
    slot_.add(0);
    state_.add(State::sample);
    known_.add(false);
    enter(0);
}

std::size_t DirectSearch::at(Row row) const {
    if (row < 0 || row >= size()) {
        throw std::out_of_range("box " + std::to_string(row) + " is not among these " + std::to_string(size()));
    }
    return static_cast<std::size_t>(row);
}

void DirectSearch::centre(Row row, double* out) const { store_.centre(at(row), out); }

void DirectSearch::lower(Row row, double* out) const {
    for (std::size_t axis = 0; axis < dimension(); ++axis) {
        out[axis] = store_.lower(store_.index(at(row))[axis], store_.exponent(at(row))[axis]);
    }
}

void DirectSearch::upper(Row row, double* out) const {
    for (std::size_t axis = 0; axis < dimension(); ++axis) {
        out[axis] = store_.upper(store_.index(at(row))[axis], store_.exponent(at(row))[axis]);
    }
}

void DirectSearch::exponents(Row row, std::int64_t* out) const {
    std::copy_n(store_.exponent(at(row)), dimension(), out);
}

void DirectSearch::longest_axes(Row row, std::vector<std::size_t>& out) const {
    const std::int64_t* index = store_.index(static_cast<std::size_t>(row));
    const std::uint8_t* exponent = store_.exponent(static_cast<std::size_t>(row));
    out.clear();
    std::uint8_t least = 255;
    for (std::size_t axis = 0; axis < dimension(); ++axis) {
        if (exponent[axis] <= least && store_.is_divisible(axes_, axis, index[axis], exponent[axis])) {
            if (exponent[axis] < least) {
                least = exponent[axis];
                out.clear();
            }
            out.push_back(axis);
        }
    }
}

// The sides that hold more than one value are of two lengths, 3^-e and 3^-(e+1): only longest ones are
// divided. A side that holds a single value is a point and adds nothing to the size.
std::int32_t DirectSearch::group_of(std::size_t row) {
    const std::int64_t* index = store_.index(row);
    const std::uint8_t* exponent = store_.exponent(row);
    std::size_t sides = 0, longest = 0;
    std::uint8_t least = 255;
    for (std::size_t axis = 0; axis < dimension(); ++axis) {
        if (store_.is_divisible(axes_, axis, index[axis], exponent[axis])) {
            ++sides;
            if (exponent[axis] < least) {
                least = exponent[axis];
                longest = 0;
            }
            longest += exponent[axis] == least;
        }
    }
    if (sides == 0) {
        return -1;
    }
    if (local_) {
        sides = longest = 0;  // the longest side alone measures a box
    }
    const std::size_t key = least * (dimension() + 1) + longest;
    std::int32_t* known = nullptr;
    if (local_ || sides == dimension()) {
        known = &regular_[key];
    } else {
        const auto wide = static_cast<std::int64_t>(key * (dimension() + 1) + sides);
        known = &irregular_.emplace(wide, -1).first->second;
    }
    if (*known < 0) {
        const double side = 1.0 / std::pow(3.0, least);
        const double others = static_cast<double>(sides - longest) / 9.0;
        const double square = local_ ? 1.0 : static_cast<double>(longest) + others;
        *known = static_cast<std::int32_t>(groups_.size());
        groups_.push_back({0.5 * side * std::sqrt(square), {}});
        const auto smaller = [this](double size, std::int32_t group) {
            return size < groups_[static_cast<std::size_t>(group)].size;
        };
        by_size_.insert(std::upper_bound(by_size_.begin(), by_size_.end(), groups_.back().size, smaller), *known);
    }
    return *known;
}

// The row is a box now, with its value or its stand-in.
void DirectSearch::enter(Row row) {
    const auto i = static_cast<std::size_t>(row);
    group_[i] = group_of(i);
    state_[i] = group_[i] < 0 ? State::closed : State::leaf;
    if (group_[i] >= 0) {
        groups_[static_cast<std::size_t>(group_[i])].leaves.push(value_[i], static_cast<std::int32_t>(row));
    }
}

void DirectSearch::purge(std::int32_t group) {
    groups_[static_cast<std::size_t>(group)].leaves.purge([=](const Entry& entry) { return holds(entry, group); });
}

// --- deciding

void DirectSearch::decide(std::int64_t n, Event& event) const {
    event.clear();
    if (unasked_ < size()) {
        return decide_asked(n, event);
    }
    if (complete_ > 0) {
        for (const Family& family : families_) {
            if (!family.divided && family.missing == 0) {
                add_division(family, event);
            }
        }
        return;
    }
    decide_selected(event);
    if (event.type == Event::Type::none && !families_.empty()) {
        // Every box is being divided: the oldest is, with stand-ins for what is not told yet.
        add_division(families_.front(), event);
    }
}

void DirectSearch::decide_asked(std::int64_t n, Event& event) const {
    const Row end = std::min(size(), unasked_ + n);
    event.type = Event::Type::asked;
    event.unit.resize(static_cast<std::size_t>(end - unasked_) * dimension());
    double* out = event.unit.data();
    for (Row row = unasked_; row < end; ++row, out += dimension()) {
        event.node.push_back(row);
        event.slot.push_back(slot_[static_cast<std::size_t>(row)]);
        store_.centre(static_cast<std::size_t>(row), out);
    }
}

// Jones, section 4: box j is potentially optimal where some K > 0 makes f_j - K d_j the least of all, and
// less than f_min by epsilon |f_min| at least. These are the vertices (and what lies on the edges) of the
// lower right convex hull of the points (d, least f of size d).
void DirectSearch::decide_selected(Event& event) const {
    struct Vertex {
        double size, value;
        std::int32_t group;
    };
    std::vector<Vertex> hull;
    // A failure counts as the worst value that was told: it can be chosen where nothing else is as large.
    const double failed = std::isfinite(worst_) ? worst_ : 0.0;
    for (const std::int32_t group : by_size_) {
        const BestFirst& leaves = groups_[static_cast<std::size_t>(group)].leaves;
        if (leaves.empty()) {
            continue;
        }
        const double value = std::isfinite(leaves.top().value) ? leaves.top().value : failed;
        const Vertex next{groups_[static_cast<std::size_t>(group)].size, value, group};
        // A smaller box that is no better is optimal for no K > 0.
        while (!hull.empty() && hull.back().value >= next.value) {
            hull.pop_back();
        }
        while (hull.size() >= 2) {
            const Vertex &a = hull[hull.size() - 2], &b = hull.back();
            const double to_b = (b.value - a.value) / (b.size - a.size);
            const double to_next = (next.value - b.value) / (next.size - b.size);
            if (to_b <= to_next) {
                break;  // on the line is on the hull
            }
            hull.pop_back();
        }
        hull.push_back(next);
    }
    for (std::size_t j = 0; j < hull.size(); ++j) {
        if (j + 1 < hull.size() && std::isfinite(best_)) {
            const double slope = (hull[j + 1].value - hull[j].value) / (hull[j + 1].size - hull[j].size);
            if (hull[j].value - slope * hull[j].size > best_ - epsilon_ * std::abs(best_)) {
                continue;
            }
        }
        const std::int32_t group = hull[j].group;
        const BestFirst& leaves = groups_[static_cast<std::size_t>(group)].leaves;
        const double least = leaves.top().value;
        const double tied = least + same * std::abs(least);
        const std::size_t first = event.node.size();
        leaves.each([=](const Entry& entry) { return holds(entry, group); },
                    [&](const Entry& entry) {
                        if (!(entry.value <= tied)) {
                            return false;
                        }
                        event.node.push_back(entry.node);
                        return !local_ && std::isfinite(least);  // all that tie; one of the failures
                    });
        // By age; a box told its stand-in's very value has two equal entries.
        const auto begin = event.node.begin() + static_cast<std::ptrdiff_t>(first);
        std::sort(begin, event.node.end());
        event.node.erase(std::unique(begin, event.node.end()), event.node.end());
    }
    if (!event.node.empty()) {
        event.type = Event::Type::selected;
        event.sweep = iteration_ + 1;
    }
}

// Jones, section 3.2: the axis with the least w = min(f(c + delta e), f(c - delta e)) first, so that the
// best points get the largest boxes. Ties: lowest axis. The event says (box, axis) in that order.
void DirectSearch::add_division(const Family& family, Event& event) const {
    std::vector<std::pair<double, std::int64_t>> order;
    for (Row row = family.first; row < family.first + family.points; row += 2) {
        double least = infinity;
        for (const Row side : {row, row + 1}) {
            const auto i = static_cast<std::size_t>(side);
            // What is not told yet is taken to be as good as the box it is cut from.
            least = std::min(least, known_[i] ? value_[i] : value_[static_cast<std::size_t>(family.box)]);
        }
        order.emplace_back(least, slot_[static_cast<std::size_t>(row)] / 2);
    }
    std::sort(order.begin(), order.end());
    event.type = Event::Type::expanded;
    event.sweep = iteration_;
    event.bound = best_;
    for (const auto& [least, axis] : order) {
        event.node.push_back(family.box);
        event.slot.push_back(axis);
    }
}

// --- applying

void DirectSearch::apply(const Event& event) {
    switch (event.type) {
        case Event::Type::asked:
            return apply_asked(event);
        case Event::Type::told:
            return apply_told(event);
        case Event::Type::selected:
            return apply_selected(event);
        case Event::Type::expanded:
            return apply_expanded(event);
        default:
            refuse("this search knows the events asked, told, selected and expanded only");
    }
}

void DirectSearch::apply_asked(const Event& event) {
    for (std::size_t row = 0; row < event.id.size(); ++row) {
        if (unasked_ == size()) {
            refuse("trial " + std::to_string(event.id[row]) + " was recorded for box " +
                   std::to_string(event.node[row]) + ", this tree asks for nothing");
        }
        const auto i = static_cast<std::size_t>(unasked_);
        store_.centre(i, point_.data());
        check_asked(event, row, unasked_, slot_[i], point_.data());
        running_.add(event.id[row], unasked_);
        ++unasked_;
    }
}

void DirectSearch::apply_told(const Event& event) {
    for (std::size_t k = 0; k < event.id.size(); ++k) {
        const Row row = running_.finish(event.id[k]);
        const auto i = static_cast<std::size_t>(row);
        value_[i] = event.value[k];
        known_[i] = true;
        best_ = std::min(best_, value_[i]);
        if (std::isfinite(value_[i])) {
            worst_ = std::max(worst_, value_[i]);
        }
        if (state_[i] == State::leaf) {  // it had a stand-in
            groups_[static_cast<std::size_t>(group_[i])].leaves.push(value_[i], static_cast<std::int32_t>(row));
            purge(group_[i]);
        } else if (state_[i] == State::sample) {
            const auto after = std::upper_bound(families_.begin(), families_.end(), row,
                                                [](Row r, const Family& family) { return r < family.first; });
            Family& family = *(after - 1);
            complete_ += --family.missing == 0;
        }
    }
}

DirectSearch::Row DirectSearch::add_row(Row from) {
    if (size() >= std::numeric_limits<std::int32_t>::max()) {
        throw std::length_error("a tree holds at most 2^31 boxes");
    }
    const auto row = static_cast<Row>(store_.add_copy(static_cast<std::size_t>(from)));
    value_.add(std::numeric_limits<double>::quiet_NaN());
    group_.add(-1);
    slot_.add(0);
    state_.add(State::sample);
    known_.add(false);
    return row;
}

void DirectSearch::apply_selected(const Event& event) {
    iteration_ = event.sweep;
    for (const Row box : event.node) {
        if (state_[at(box)] != State::leaf) {
            refuse("box " + std::to_string(box) + " cannot be chosen: it is not a leaf");
        }
        longest_axes(box, scratch_);
        const auto points = static_cast<std::int32_t>(2 * scratch_.size());
        families_.push_back({box, size(), points, points, false});
        for (const std::size_t axis : scratch_) {
            for (const std::int64_t side : {0, 1}) {
                const auto row = static_cast<std::size_t>(add_row(box));
                store_.shrink(row, axis, 2 * side);
                slot_[row] = static_cast<std::int32_t>(2 * axis) + static_cast<std::int32_t>(side);
            }
        }
        state_[at(box)] = State::open;
        purge(group_[at(box)]);
    }
}

void DirectSearch::apply_expanded(const Event& event) {
    std::size_t k = 0;
    while (k < event.node.size()) {
        const Row box = event.node[k];
        const auto family = std::find_if(families_.begin(), families_.end(),
                                         [=](const Family& f) { return f.box == box && !f.divided; });
        const auto axes = static_cast<std::size_t>(family == families_.end() ? 0 : family->points / 2);
        if (axes == 0 || k + axes > event.node.size()) {
            refuse("box " + std::to_string(box) + " was not chosen, or is divided along too few axes");
        }
        std::vector<Row> left;  // the lower of two points, one an axis, not cut off yet
        for (Row row = family->first; row < family->first + family->points; row += 2) {
            left.push_back(row);
        }
        for (const std::size_t end = k + axes; k < end; ++k) {
            const auto axis = event.slot[k];
            const auto cut = std::find_if(left.begin(), left.end(), [&](Row row) {
                return slot_[static_cast<std::size_t>(row)] / 2 == axis;
            });
            if (event.node[k] != box || cut == left.end()) {
                refuse("box " + std::to_string(box) + " is not divided along axis " + std::to_string(axis));
            }
            const Row first = *cut;
            left.erase(cut);
            for (const Row row : left) {  // the points of later axes lie in the middle third
                store_.shrink(static_cast<std::size_t>(row), static_cast<std::size_t>(axis), 1);
                store_.shrink(static_cast<std::size_t>(row + 1), static_cast<std::size_t>(axis), 1);
            }
            store_.shrink(static_cast<std::size_t>(box), static_cast<std::size_t>(axis), 1);
            for (const Row row : {first, first + 1}) {
                if (!known_[static_cast<std::size_t>(row)]) {
                    value_[static_cast<std::size_t>(row)] = value_[static_cast<std::size_t>(box)];
                }
                enter(row);
            }
        }
        enter(box);
        complete_ -= family->missing == 0;
        family->divided = true;
        while (!families_.empty() && families_.front().divided) {
            families_.pop_front();
        }
    }
}

}  // namespace fractopt
