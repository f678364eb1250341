// An array that grows without moving or doubling: rows of one width, in pieces of about 64 KiB.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

namespace fractopt {

template <typename T> class Chunked {
public:
    explicit Chunked(std::size_t width = 1) : width_(width) {
        while ((std::size_t{1} << (shift_ + 1)) * width * sizeof(T) <= (std::size_t{1} << 16)) {
            ++shift_;
        }
        mask_ = (std::size_t{1} << shift_) - 1;
    }

    Chunked(const Chunked&) = delete;
    Chunked& operator=(const Chunked&) = delete;

    std::size_t size() const { return size_; }  // rows
    T* row(std::size_t i) { return pieces_[i >> shift_].get() + (i & mask_) * width_; }
    const T* row(std::size_t i) const { return pieces_[i >> shift_].get() + (i & mask_) * width_; }
    T& operator[](std::size_t i) { return *row(i); }
    const T& operator[](std::size_t i) const { return *row(i); }

    // One more row, not initialised; rows that are there stay where they are.
    T* add() {
        if ((size_ >> shift_) == pieces_.size()) {
            pieces_.emplace_back(new T[(mask_ + 1) * width_]);
        }
        return row(size_++);
    }
    void add(const T& value) { *add() = value; }

private:
    std::size_t width_;
    std::size_t shift_ = 0;
    std::size_t mask_ = 0;
    std::size_t size_ = 0;
    std::vector<std::unique_ptr<T[]>> pieces_;
};

}  // namespace fractopt
