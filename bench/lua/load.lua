-- Sends the requests of a file, one after the other and again from the first; each is a line with
-- its size and then its bytes. At the end the exact numbers, which wrk rounds, as one JSON line.
-- Called as: wrk ... URL -- FILE

local requests, at = {}, 0

function init(args)
    local file = assert(io.open(args[1], "rb"))
    while true do
        local size = file:read("*l")
        if not size then break end
        requests[#requests + 1] = file:read(tonumber(size))
    end
    file:close()
    assert(#requests > 0, "no requests")
end

function request()
    at = at % #requests + 1
    return requests[at]
end

function done(summary, latency, _)
    local errors = summary.errors
    io.write(string.format(
        'RESULT {"requests": %d, "bytes": %d, "microseconds": %d, ' ..
        '"errors": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}, ' ..
        '"latency": {"50": %d, "90": %d, "99": %d, "99.9": %d, "100": %d}}\n',
        summary.requests, summary.bytes, summary.duration, errors.connect, errors.read,
        errors.write, errors.status, errors.timeout, latency:percentile(50), latency:percentile(90),
        latency:percentile(99), latency:percentile(99.9), latency.max))
end
