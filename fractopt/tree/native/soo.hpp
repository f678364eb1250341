// SOO; the algorithm and its departures are told in fractopt/optimizer/soo.py.
#pragma once

#include "section.hpp"

namespace fractopt {

class SooSearch : public SectionSearch {
public:
    enum class Depth { sqrt, log };  // h_max(t)

    SooSearch(Axes axes, std::int64_t children, Depth depth) : SectionSearch(std::move(axes), children), rule_(depth) {}

    void decide(std::int64_t n, Event& event) const override;

private:
    void applied(const Event& expanded) override;
    std::int64_t h_max() const;
    void expansion(BoxTree::Node leaf, std::int64_t sweep, std::int64_t depth, double bound, Event& event) const;

    Depth rule_;
    std::int64_t sweep_ = 0;
    std::int64_t depth_ = 0;  // the next depth of the sweep
    double bound_ = infinity;
};

}  // namespace fractopt
