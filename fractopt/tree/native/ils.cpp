#include "ils.hpp"

#include <algorithm>
#include <utility>

namespace fractopt {

namespace {

[[noreturn]] void refuse(const std::string& message) { throw std::invalid_argument(message); }

}  // namespace

IlsSearch::IlsSearch(Axes axes, Start start, double step, double least_step)
    : axes_(std::move(axes)), start_(std::move(start)), step_(step), least_step_(least_step) {}

void IlsSearch::decide(std::int64_t n, Event& event) const {
    event.clear();
    if (!unasked_.empty()) {
        const std::size_t count = std::min(unasked_.size(), static_cast<std::size_t>(n));
        event.type = Event::Type::asked;
        event.unit.resize(count * dimension());
        for (std::size_t row = 0; row < count; ++row) {
            const Task& task = unasked_[row];
            event.node.push_back(task.search);
            event.slot.push_back(task.slot);
            searches_.at(task.search).point(task.slot, event.unit.data() + row * dimension());
        }
        return;
    }
    // The oldest search that has an axis left in its pass looks ahead; where none has, another begins.
    event.type = Event::Type::selected;
    for (const auto& [number, search] : searches_) {
        const std::int64_t axis = search.axis_ahead();
        if (axis >= 0) {
            event.node.push_back(number);
            event.sweep = axis;
            return;
        }
    }
    event.node.push_back(begun_);
    event.sweep = -1;
}

void IlsSearch::apply(const Event& event) {
    switch (event.type) {
        case Event::Type::asked:
            return apply_asked(event);
        case Event::Type::told:
            for (std::size_t row = 0; row < event.id.size(); ++row) {
                apply_told(event.id[row], event.value[row]);
            }
            return;
        case Event::Type::selected:
            for (const std::int64_t search : event.node) {
                apply_selected(search, event.sweep);
            }
            return;
        default:
            refuse("this search knows the events asked, told and selected only");
    }
}

void IlsSearch::apply_asked(const Event& event) {
    std::vector<double> point(dimension());
    for (std::size_t row = 0; row < event.id.size(); ++row) {
        const std::int64_t id = event.id[row];
        if (unasked_.empty()) {
            refuse("trial " + std::to_string(id) + " was recorded for local search " +
                   std::to_string(event.node[row]) + ", these ask for nothing");
        }
        const Task task = unasked_.front();
        searches_.at(task.search).point(task.slot, point.data());
        check_asked(event, row, task.search, task.slot, point.data());
        if (!running_.emplace(id, task).second) {
            refuse("trial " + std::to_string(id) + " was asked before");
        }
        unasked_.pop_front();
    }
}

void IlsSearch::apply_told(std::int64_t id, double value) {
    const auto found = running_.find(id);
    if (found == running_.end()) {
        refuse("trial " + std::to_string(id) + " was told, but does not run");
    }
    const Task task = found->second;
    running_.erase(found);
    const auto place = searches_.find(task.search);
    if (place == searches_.end() || place->second.moves() != task.moves) {
        return;  // a look ahead around a point that the search has left since
    }
    CoordinateSearch& search = place->second;
    std::vector<std::int64_t> slots;
    search.tell(task.slot, value, slots);
    if (search.moves() != task.moves) {
        const auto is_void = [&](const Task& t) { return t.search == task.search; };
        unasked_.erase(std::remove_if(unasked_.begin(), unasked_.end(), is_void), unasked_.end());
    }
    plan(task.search, slots);
    if (search.is_over()) {
        searches_.erase(place);
    }
}

void IlsSearch::apply_selected(std::int64_t number, std::int64_t axis) {
    if (number == begun_) {
        std::vector<double> start(dimension());
        start_(number, start.data());
        searches_.emplace(number, CoordinateSearch(axes_, std::move(start), step_, least_step_));
        ++begun_;
        return plan(number, {0});
    }
    const auto place = searches_.find(number);
    if (place == searches_.end() || axis < 0 || place->second.axis_ahead() != axis) {
        refuse("local search " + std::to_string(number) + " does not look ahead along axis " + std::to_string(axis));
    }
    std::vector<std::int64_t> slots;
    place->second.look_ahead(slots);
    plan(number, slots);
}

void IlsSearch::plan(std::int64_t number, const std::vector<std::int64_t>& slots) {
    const std::int64_t moves = searches_.at(number).moves();
    for (const std::int64_t slot : slots) {
        unasked_.push_back({number, slot, moves});
    }
}

}  // namespace fractopt
