// Leaves of one group by (value, id): the least is at hand, equal values come out oldest first.
//
// A heap in one array. Entries are not taken out where their leaf leaves the group, but when they come
// to the top: `purge` must be called after every such change, with what says whether an entry still holds.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fractopt {

struct Entry {
    double value;
    std::int32_t node;

    bool operator<(const Entry& other) const {
        return value != other.value ? value < other.value : node < other.node;
    }
};

class BestFirst {
public:
    bool empty() const { return heap_.empty(); }
    const Entry& top() const { return heap_.front(); }

    void push(double value, std::int32_t node) {
        heap_.push_back({value, node});
        std::push_heap(heap_.begin(), heap_.end(), after);
    }

    template <typename Holds> void purge(const Holds& holds) {
        while (!heap_.empty() && !holds(heap_.front())) {
            std::pop_heap(heap_.begin(), heap_.end(), after);
            heap_.pop_back();
        }
    }

    // Calls take(entry), best first, for the entries that hold, until it returns false.
    template <typename Holds, typename Take> void each(const Holds& holds, const Take& take) const {
        if (heap_.empty()) {
            return;
        }
        const auto later = [this](std::size_t a, std::size_t b) { return heap_[b] < heap_[a]; };
        std::vector<std::size_t> front{0};  // the children of a taken entry join
        while (!front.empty()) {
            std::pop_heap(front.begin(), front.end(), later);
            const std::size_t at = front.back();
            front.pop_back();
            if (holds(heap_[at]) && !take(heap_[at])) {
                return;
            }
            for (const std::size_t child : {2 * at + 1, 2 * at + 2}) {
                if (child < heap_.size()) {
                    front.push_back(child);
                    std::push_heap(front.begin(), front.end(), later);
                }
            }
        }
    }

private:
    static bool after(const Entry& a, const Entry& b) { return b < a; }

    std::vector<Entry> heap_;
};

}  // namespace fractopt
