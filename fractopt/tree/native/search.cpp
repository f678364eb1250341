#include "search.hpp"

#include <cstdio>

namespace fractopt {

namespace {

std::string text(const double* point, std::size_t d) {
    std::string out = "[";
    for (std::size_t axis = 0; axis < d; ++axis) {
        char number[32];
        std::snprintf(number, sizeof number, "%s%.17g", axis ? ", " : "", point[axis]);
        out += number;
        if (axis == 11 && d > 13) {
            return out + ", ...]";
        }
    }
    return out + "]";
}

}  // namespace

void Search::check_asked(const Event& event, std::size_t row, std::int64_t node, std::int64_t slot,
                         const double* point) const {
    const std::size_t d = dimension();
    const double* recorded = event.unit.data() + row * d;
    if (event.node[row] == node && event.slot[row] == slot &&
        std::memcmp(recorded, point, d * sizeof(double)) == 0) {
        return;
    }
    throw std::invalid_argument(
        "trial " + std::to_string(event.id[row]) + " was recorded at " + text(recorded, d) + " (node " +
        std::to_string(event.node[row]) + ", slot " + std::to_string(event.slot[row]) +
        "), but this tree asks for " + text(point, d) + " (node " + std::to_string(node) + ", slot " +
        std::to_string(slot) +
        ") there: the record is damaged, or was written for another space or with other settings, or by "
        "another build");
}

}  // namespace fractopt
