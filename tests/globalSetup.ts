/** Starts what the selected test files need and stops it at the end: nothing for tests/unit alone. */
import type { TestProject } from 'vitest/node'
import { terminalProgress } from '../local/progress.ts'
import type { TestClusters } from './support/clusters.ts'
import { openRunDirectory, removeAbandonedRuns } from './support/runDirectory.ts'

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  await removeAbandonedRuns()
  const folders = await selectedFolders(project)
  const runDir = await openRunDirectory()
  let clusters: TestClusters = { servers: [], stop: () => Promise.resolve() }
  const stop = async () => {
    await clusters.stop()
    await Deno.remove(runDir, { recursive: true })
  }
  try {
    if ([...folders].some((folder) => folder !== 'unit')) {
      // Loaded when needed: tests/unit starts no server.
      const { startClusters } = await import('./support/clusters.ts')
      clusters = await startClusters({
        directory: runDir,
        all: folders.has('db'),
        progress: await terminalProgress(),
      })
    }
  } catch (error) {
    await stop()
    throw error
  }
  project.provide('postgres', clusters.servers)
  project.provide('runDir', runDir)
  return stop
}

/** The folders below tests/ that have a file in this run. */
async function selectedFolders(project: TestProject): Promise<Set<string>> {
  const { filters } = project.getProvidedContext()
  const specifications = await project.vitest.getRelevantTestSpecifications(filters)
  const folders = specifications.map(({ moduleId }) => /\/tests\/([^/]+)\//.exec(moduleId)?.[1])
  return new Set(folders.filter((folder) => folder !== undefined))
}
