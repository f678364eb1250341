#include "block.hpp"

#include <algorithm>
#include <iterator>
#include <numeric>
#include <stdexcept>
#include <string>

namespace fractopt {

namespace {

template <typename T> void append(std::vector<T>& all, const std::vector<T>& more) {
    all.insert(all.end(), more.begin(), more.end());
}

template <typename T> void take(std::vector<T>& out, const std::vector<T>& all, std::size_t from, std::size_t count) {
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(from);
    out.assign(begin, begin + static_cast<std::ptrdiff_t>(count));
}

// By Block::Kind.
constexpr Event::Type types[] = {Event::Type::asked, Event::Type::expanded, Event::Type::selected,
                                 Event::Type::scored};

}  // namespace

void Block::add(const Event& event, const std::vector<double>& told) {
    size.push_back(static_cast<std::int64_t>(event.node.size()));
    sweep.push_back(event.sweep);
    depth.push_back(event.depth);
    bound.push_back(event.bound);
    kind.push_back(std::find(std::begin(types), std::end(types), event.type) - types);
    if (event.type == Event::Type::asked) {
        append(unit, event.unit);
        append(node, event.node);
        append(slot, event.slot);
        append(loss, told);
        return;
    }
    append(region, event.node);
    axis.resize(region.size(), -1);
    score.resize(region.size(), 0.0);
    std::copy(event.slot.begin(), event.slot.end(), axis.end() - static_cast<std::ptrdiff_t>(event.slot.size()));
    std::copy(event.value.begin(), event.value.end(), score.end() - static_cast<std::ptrdiff_t>(event.value.size()));
}

void Block::apply(Search& search) const {
    const std::size_t d = search.dimension();
    std::int64_t trials = 0, items = 0;
    for (std::size_t i = 0; i < kind.size(); ++i) {
        if (kind[i] < asked || kind[i] > scored || size[i] < 0) {
            throw std::invalid_argument("a block of events has one of kind " + std::to_string(kind[i]) +
                                        " and size " + std::to_string(size[i]));
        }
        (kind[i] == asked ? trials : items) += size[i];
    }
    if (trials != static_cast<std::int64_t>(node.size()) || items != static_cast<std::int64_t>(region.size())) {
        throw std::invalid_argument("a block of events has " + std::to_string(node.size()) + " trials and " +
                                    std::to_string(region.size()) + " items of the tree, and events of " +
                                    std::to_string(trials) + " and " + std::to_string(items));
    }
    Event event, told;
    told.type = Event::Type::told;
    std::size_t trial = 0, item = 0;
    for (std::size_t i = 0; i < kind.size(); ++i) {
        const auto count = static_cast<std::size_t>(size[i]);
        event.clear();
        event.type = types[kind[i]];
        if (event.type == Event::Type::asked) {
            event.id.resize(count);
            std::iota(event.id.begin(), event.id.end(), first + static_cast<std::int64_t>(trial));
            take(event.unit, unit, trial * d, count * d);
            take(event.node, node, trial, count);
            take(event.slot, slot, trial, count);
            search.apply(event);
            told.id = event.id;
            take(told.value, loss, trial, count);
            search.apply(told);
            trial += count;
            continue;
        }
        take(event.node, region, item, count);
        take(event.slot, axis, item, count);
        take(event.value, score, item, count);
        event.sweep = sweep[i];
        event.depth = depth[i];
        event.bound = bound[i];
        search.apply(event);
        item += count;
    }
}

}  // namespace fractopt
