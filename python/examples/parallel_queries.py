"""Many queries at once, in cells that run in a notebook or from top to bottom: ``python parallel_queries.py``."""

# %% The engine, with the embedded model.
import asyncio
import concurrent.futures
import threading

import tidegate

engine = tidegate.Engine()

# %% Submitted at once, taken as they end. Handles need no event loop, so a notebook's own is not in the way.
queries = ["The sea is", "The moon is", "A gate is", "High water is"]
handles = {engine.submit(query, max_tokens=12, temperature=0.0): query for query in queries}
for handle in concurrent.futures.as_completed(handles):
    print(f"{handles[handle]}{handle.result().text}")

# %% The same with a limit, in the order of the queries, where one that fails stops no other.
def ask() -> None:
    results = asyncio.run(tidegate.parallel_run(engine, [*queries, 3], max_concurrent=2, max_tokens=8))
    for one in results:
        print(one.query, "->", one.result.text if one.is_ok else f"failed: {one.error}")


thread = threading.Thread(target=ask)  # Its loop is its own, whatever runs here.
thread.start()
thread.join()

# %% Operations on lanes: CUDA streams where there is a GPU, threads where there is none.
async def spread() -> list[int]:
    return await tidegate.ExecutionLanes(2).run_all([lambda: sum(range(10**6))] * 4)


print(concurrent.futures.ThreadPoolExecutor(1).submit(asyncio.run, spread()).result())
engine.close()
