#include "fda.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>

namespace fractopt {

namespace {

constexpr std::int64_t deepest_by_budget = 5;  // the paper's k

[[noreturn]] void refuse(const std::string& message) { throw std::invalid_argument(message); }

}  // namespace

FdaSearch::FdaSearch(Axes axes, const FdaSettings& settings)
    : axes_(std::move(axes)),
      settings_(settings),
      geometry_(Geometry::make(settings.geometry, axes_.dimension(), settings.radius)),
      k_(settings.depth > 0 ? settings.depth : deepest_by_budget),
      points_(exploration_points(settings.exploration)),
      best_point_(axes_.dimension(), 0.5),
      scratch_(axes_.dimension()) {
    if (settings.depth < 0 || settings.depth > 60) {
        refuse("the depth must lie in 1..60, or be 0, got " + std::to_string(settings.depth));
    }
    parent_.add(-1);
    slot_.add(0);
    level_.add(0);
    score_.add(infinity);
    open(0);
}

std::size_t FdaSearch::at(Region region) const {
    if (region < 0 || region >= size()) {
        throw std::out_of_range("region " + std::to_string(region) + " is not among these " + std::to_string(size()));
    }
    return static_cast<std::size_t>(region);
}

std::int64_t FdaSearch::before_exploitation(std::int64_t depth) const {
    return points_ * geometry_->children() * (depth - 1);
}

void FdaSearch::set_budget(std::int64_t evaluations) {
    if (settings_.depth > 0 || expansions_ > 0) {
        return;  // the tree stays what it is
    }
    // A tenth of the budget at most may go before the first local search.
    k_ = deepest_by_budget;
    while (k_ > 1 && before_exploitation(k_) > evaluations / 10) {
        --k_;
    }
}

// --- points

void FdaSearch::centre(Region region, double* out) const {
    std::int32_t path[64];
    std::size_t length = 0;
    for (std::size_t node = at(region); parent_[node] >= 0; node = static_cast<std::size_t>(parent_[node])) {
        path[length++] = slot_[node];
    }
    std::fill_n(out, dimension(), 0.5);
    for (std::int64_t level = 1; length > 0; ++level) {
        geometry_->descend(level, path[--length], out);
    }
}

// Exploration: slot 0 is c, slots 1 and 2 are c +- alpha r / sqrt D (1, ..., 1), clipped to the cube.
// Local search: as CoordinateSearch has them.
void FdaSearch::point(Region region, std::int64_t slot, double* out) const {
    const std::int64_t level = level_[at(region)];
    if (!explores(level)) {
        return locals_.at(region).point(slot, out);
    }
    centre(region, out);
    if (slot > 0) {
        for (std::size_t axis = 0; axis < dimension(); ++axis) {
            const double shift = settings_.inflation * geometry_->spread(level, axis);
            out[axis] = std::clamp(slot == 1 ? out[axis] + shift : out[axis] - shift, 0.0, 1.0);
        }
    }
}

// --- deciding

void FdaSearch::decide(std::int64_t n, Event& event) const {
    event.clear();
    if (!unasked_.empty()) {
        const std::size_t count = std::min(unasked_.size(), static_cast<std::size_t>(n));
        event.type = Event::Type::asked;
        event.unit.resize(count * dimension());
        for (std::size_t row = 0; row < count; ++row) {
            event.node.push_back(unasked_[row].region);
            event.slot.push_back(unasked_[row].slot);
            point(unasked_[row].region, unasked_[row].slot, event.unit.data() + row * dimension());
        }
        return;
    }
    if (complete_ > 0) {
        const auto family = std::find_if(families_.begin(), families_.end(),
                                         [](const Family& f) { return !f.scored && f.missing == 0; });
        return add_scores(*family, event);
    }
    if (!open_.empty()) {
        const Region region = open_.begin()->second;
        event.type = Event::Type::expanded;
        event.node.push_back(region);
        event.slot.push_back(-1);
        event.sweep = expansions_;
        event.depth = level_[static_cast<std::size_t>(region)];
        event.bound = score_[static_cast<std::size_t>(region)];
        return;
    }
    if (!families_.empty()) {
        add_scores(families_.front(), event);  // with what is known: nobody waits
    }
}

// In turn: child number i is scored against the best of what was known when its parent was expanded and of
// the points of children 1 .. i, as if these were told in their order. Else: all against the best known now.
void FdaSearch::add_scores(const Family& family, Event& event) const {
    event.type = Event::Type::scored;
    const auto points = static_cast<std::size_t>(points_);
    double best = settings_.in_turn ? family.best : best_;
    std::vector<double> best_point = settings_.in_turn ? family.best_point : best_point_;
    std::vector<double> value(points), distance(points);
    std::vector<double> x(points * dimension());
    for (std::int64_t child = 0; child < family.regions; ++child) {
        bool told = false;
        for (std::size_t j = 0; j < points; ++j) {
            value[j] = family.value[static_cast<std::size_t>(child) * points + j];
            told |= !std::isnan(value[j]);
            double* at = x.data() + j * dimension();
            point(family.first + child, static_cast<std::int64_t>(j), at);
            if (value[j] < best && settings_.in_turn) {
                best = value[j];
                best_point.assign(at, at + dimension());
            }
        }
        for (std::size_t j = 0; j < points; ++j) {
            double square = 0.0;
            for (std::size_t axis = 0; axis < dimension(); ++axis) {
                const double gap = x[j * dimension() + axis] - best_point[axis];
                square += gap * gap;
            }
            distance[j] = std::sqrt(square);
        }
        event.node.push_back(family.first + child);
        // A child none of whose points is told has its parent's score for a stand-in.
        event.value.push_back(told ? fractopt::score(settings_.scoring, value, distance, best)
                                   : score_[static_cast<std::size_t>(parent(family.first + child))]);
    }
}

// --- applying

void FdaSearch::apply(const Event& event) {
    switch (event.type) {
        case Event::Type::asked:
            return apply_asked(event);
        case Event::Type::told:
            return apply_told(event);
        case Event::Type::expanded:
            for (const Region region : event.node) {
                expand(region);
            }
            return;
        case Event::Type::scored: {
            if (event.node.empty()) {
                return;
            }
            const auto family = std::find_if(families_.begin(), families_.end(), [&](const Family& f) {
                return !f.scored && f.first == event.node.front() &&
                       f.regions == static_cast<std::int64_t>(event.node.size());
            });
            if (family == families_.end()) {
                refuse("region " + std::to_string(event.node.front()) + " is not to be scored");
            }
            complete_ -= family->missing == 0;
            family->scored = true;
            for (std::size_t row = 0; row < event.node.size(); ++row) {
                score_[at(event.node[row])] = event.value[row];
                open(event.node[row]);
            }
            while (!families_.empty() && families_.front().scored) {
                families_.pop_front();
            }
            return;
        }
        default:
            refuse("this search knows the events asked, told, expanded and scored only");
    }
}

void FdaSearch::open(Region region) {
    const std::size_t i = at(region);
    if (level_[i] < k_ || !explores(level_[i])) {  // without exploitation the last level is not opened
        open_.insert({{order_key(settings_.order, level_[i]), score_[i]}, region});
    }
}

void FdaSearch::apply_asked(const Event& event) {
    for (std::size_t row = 0; row < event.id.size(); ++row) {
        if (unasked_.empty()) {
            refuse("trial " + std::to_string(event.id[row]) + " was recorded for region " +
                   std::to_string(event.node[row]) + ", this tree asks for nothing");
        }
        const Task task = unasked_.front();
        point(task.region, task.slot, scratch_.data());
        check_asked(event, row, task.region, task.slot, scratch_.data());
        running_.add(event.id[row], task.region * (2 * static_cast<std::int64_t>(dimension()) + 4) + task.slot);
        unasked_.pop_front();
    }
}

void FdaSearch::apply_told(const Event& event) {
    for (std::size_t row = 0; row < event.id.size(); ++row) {
        const std::int64_t code = running_.finish(event.id[row]);
        const std::int64_t slots = 2 * static_cast<std::int64_t>(dimension()) + 4;
        const Region region = code / slots;
        const std::int64_t slot = code % slots;
        const double value = event.value[row];
        if (value < best_) {
            best_ = value;
            point(region, slot, best_point_.data());
        }
        if (!explores(level_[at(region)])) {
            tell_local(region, slot, value);
            continue;
        }
        const auto after = std::upper_bound(families_.begin(), families_.end(), region,
                                            [](Region r, const Family& family) { return r < family.first; });
        if (after == families_.begin()) {
            continue;  // scored without it
        }
        Family& family = *(after - 1);
        if (family.scored || region >= family.first + family.regions) {
            continue;
        }
        family.value[static_cast<std::size_t>((region - family.first) * points_ + slot)] = value;
        complete_ += --family.missing == 0;
    }
}

void FdaSearch::expand(Region region) {
    const auto place = open_.find({{order_key(settings_.order, level(region)), score(region)}, region});
    if (place == open_.end()) {
        refuse("region " + std::to_string(region) + " cannot be expanded: it is not open");
    }
    open_.erase(place);
    ++expansions_;
    const std::int64_t next = level(region) + 1;
    if (!explores(next - 1)) {
        std::vector<double> start(dimension());
        centre(region, start.data());
        const double step = settings_.inflation * geometry_->radius(next - 1);
        locals_.emplace(region, CoordinateSearch(axes_, std::move(start), step, settings_.least_step));
        ++local_searches_;
        unasked_.push_back({region, 0});
        return;
    }
    const std::int64_t children = geometry_->children();
    const Region first = size();
    if (first + children >= std::numeric_limits<std::int32_t>::max()) {
        throw std::length_error("a tree holds at most 2^31 regions");
    }
    for (std::int64_t slot = 0; slot < children; ++slot) {
        parent_.add(static_cast<std::int32_t>(region));
        slot_.add(static_cast<std::int32_t>(slot));
        level_.add(static_cast<std::int32_t>(next));
        score_.add(score_[static_cast<std::size_t>(region)]);
        if (!explores(next)) {
            open(first + slot);  // no exploration at the last level: its parent's score, then age
            continue;
        }
        for (std::int32_t j = 0; j < points_; ++j) {
            unasked_.push_back({first + slot, j});
        }
    }
    if (explores(next)) {
        const auto values = static_cast<std::size_t>(children * points_);
        families_.push_back({first, children, children * points_, false,
                             std::vector<double>(values, std::numeric_limits<double>::quiet_NaN()), best_,
                             best_point_});
    }
}

void FdaSearch::tell_local(Region region, std::int64_t slot, double value) {
    const auto local = locals_.find(region);
    slots_.clear();
    local->second.tell(slot, value, slots_);
    for (const std::int64_t next : slots_) {
        unasked_.push_back({region, static_cast<std::int32_t>(next)});
    }
    if (local->second.is_over()) {
        locals_.erase(local);
    }
}

}  // namespace fractopt
