// An error on its way from a worker to the main thread. Classes do not survive the way; what main()
// goes by does: the message, the exit code, and for our own bugs name and stack.

/** An error as plain data. */
export interface Failure {
  readonly name: string;
  readonly message: string;
  readonly stack?: string;
  /** Errors of the user's making have one; our bugs do not. */
  readonly exitCode?: number;
}

export function failureOf(error: unknown): Failure {
  if (!(error instanceof Error)) return {name: 'Error', message: String(error)};
  const {name, message, stack} = error;
  return {
    name,
    message,
    ...(stack === undefined ? {} : {stack}),
    ...('exitCode' in error && typeof error.exitCode === 'number'
      ? {exitCode: error.exitCode}
      : {}),
  };
}

/** The error again, to be thrown: main() treats it as it would have treated the original. */
export function errorOf({name, message, stack, exitCode}: Failure): Error {
  const error = new Error(message);
  error.name = name;
  if (stack !== undefined) error.stack = stack;
  return exitCode === undefined ? error : Object.assign(error, {exitCode});
}
