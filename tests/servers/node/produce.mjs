// A studio's Node.js back end: adds jobs to a BullMQ queue and tells, a JSON line each, what QueueEvents says of them.
import { Queue, QueueEvents } from "bullmq";

const [url, name, jobs] = process.argv.slice(2);
const connection = { url, maxRetriesPerRequest: null };
const queue = new Queue(name, { connection });
const events = new QueueEvents(name, { connection });
const tell = (line) => process.stdout.write(JSON.stringify(line) + "\n");

await events.waitUntilReady();
events.on("progress", ({ jobId, data }) => tell({ event: "progress", id: jobId, data }));
events.on("active", ({ jobId }) => tell({ event: "active", id: jobId }));
const added = [];
for (const { name, data, opts } of JSON.parse(jobs)) added.push(await queue.add(name, data, opts));
for (const job of added) tell({ event: "added", id: job.id, name: job.name });
await Promise.all(
  added.map((job) =>
    job.waitUntilFinished(events, 60000).then(
      (value) => tell({ event: "completed", id: job.id, value }),
      (error) => tell({ event: "failed", id: job.id, reason: error.message }),
    ),
  ),
);
await events.close();
await queue.close();
