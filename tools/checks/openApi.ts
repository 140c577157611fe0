/** docs/openapi.json says what the routes say. */
import { runTool } from '../run.ts'
import type { Check } from './problem.ts'

export const openApiIsCurrent: Check = {
  name: 'OpenAPI document',
  async find(project) {
    // A process of its own: it imports every function, and a mistake in one must not end the checks.
    const { success, output } = await runTool(project, 'deno', ['run', '-A', 'tools/openapi.ts', '--check'])
    if (success) return []
    return [{
      where: 'docs/openapi.json',
      message: output,
      fix: 'Run `npm run openapi` and commit the file.',
    }]
  },
}
