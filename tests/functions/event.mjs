// What the form `(event, context)` gets.
export const handler = async (event, context) => ({
  event,
  context: {
    functionName: context.functionName,
    functionVersion: context.functionVersion,
    memoryLimitInMB: context.memoryLimitInMB,
    awsRequestId: context.awsRequestId,
    executionId: context.executionId,
    remaining: context.getRemainingTimeInMillis(),
  },
});
