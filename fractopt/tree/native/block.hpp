// Many events in one, as columns: the record of one worker, who is told every trial before the next event.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "search.hpp"

namespace fractopt {

// fractopt.trial.Block: n trials, m events, k items of the tree.
struct Block {
    // What an event does: `asked` stands for the Told of its trials as well.
    enum Kind : std::int64_t { asked, expanded, selected, scored };

    std::int64_t first = 0;                   // the trials' ids are first .. first + n - 1
    std::vector<double> unit;                 // (n, d)
    std::vector<std::int64_t> node, slot;     // (n,)
    std::vector<double> loss;                 // (n,)
    std::vector<std::int64_t> kind, size;     // (m,); size: how many of the trials, or of the items, it has
    std::vector<std::int64_t> sweep, depth;   // (m,)
    std::vector<double> bound;                // (m,)
    std::vector<std::int64_t> region, axis;   // (k,)
    std::vector<double> score;                // (k,)

    // Appends an event that was applied; `loss` (n,) of its trials where it is Asked.
    void add(const Event& event, const std::vector<double>& loss);

    // Applies all events to `search`. Throws std::invalid_argument where the columns do not belong together,
    // and whatever `search` throws where a recorded point is not its own.
    void apply(Search& search) const;
};

}  // namespace fractopt
