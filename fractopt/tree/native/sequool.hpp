// SequOOL; the algorithm and its departures are told in fractopt/optimizer/sequool.py.
#pragma once

#include <vector>

#include "section.hpp"

namespace fractopt {

// h_max = floor(n / H_n), H_n the harmonic number.
std::int64_t sequool_depth(std::int64_t openings);

class SequoolSearch : public SectionSearch {
public:
    // `openings` is the paper's n, 0 to derive it from the budget. `waits` keeps the levels apart.
    SequoolSearch(Axes axes, std::int64_t children, std::int64_t openings, bool waits);

    void set_budget(std::int64_t evaluations) override;
    void decide(std::int64_t n, Event& event) const override;

    std::int64_t round() const { return round_; }
    std::int64_t h_max() const { return h_max_; }

private:
    void applied(const Event& expanded) override;
    void begin(std::int64_t round);
    std::int64_t depth_of(std::int64_t round) const;
    std::int64_t quota(std::int64_t depth, std::int64_t h_max) const { return depth == 0 ? 1 : h_max / depth; }
    std::int64_t opened(std::int64_t depth) const;

    std::int64_t openings_;
    bool waits_;
    std::int64_t round_ = 0;
    std::int64_t h_max_ = 0;
    std::vector<std::int64_t> opened_;  // per depth, in this round
};

}  // namespace fractopt
