/** The page: what is seen of it, on the engine that computes in a worker. */

import { startPage } from "./page/main";
import { WorkerEngine } from "./worker_engine";

startPage(new WorkerEngine(document));
